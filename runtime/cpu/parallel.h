// Loops over the queue's threads in fixed contiguous ranges.
#ifndef LORICA_RUNTIME_CPU_PARALLEL_H_
#define LORICA_RUNTIME_CPU_PARALLEL_H_

#include <algorithm>
#include <cstdint>

#include "runtime/cpu/queue.h"
#include "runtime/shape.h"

namespace lorica::cpu {

// Elements a thread must have to do before a second one is worth waking.
inline constexpr int64_t kMinElementsPerThread = 8192;

// Calls body(range) on ranges that cover [0, count) and, but for the last, are
// multiples of `grain` long. `elements` is the size of the whole loop's work.
template <typename Body>
void ParallelRanges(const Queue& queue, int64_t count, int64_t grain,
                    int64_t elements, const Body& body) {
  const int64_t blocks = (count + grain - 1) / grain;
  const int64_t worth = elements / kMinElementsPerThread;
  const int64_t ranges =
      std::max<int64_t>(1, std::min<int64_t>({queue.threads, blocks, worth}));
  if (ranges == 1) {
    if (count > 0) body(Range{0, count});
    return;
  }
#pragma omp parallel for schedule(static) num_threads(queue.threads)
  for (int64_t i = 0; i < ranges; ++i) {
    const int64_t begin = blocks * i / ranges * grain;
    const int64_t end = std::min(count, blocks * (i + 1) / ranges * grain);
    body(Range{begin, end});
  }
}

// Calls body(rows) on ranges of the rows of a matrix of that many columns.
template <typename Body>
void ParallelRows(const Queue& queue, int64_t rows, int64_t cols,
                  const Body& body) {
  ParallelRanges(queue, rows, 1, rows * cols, body);
}

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_PARALLEL_H_
