// The rows that no segment covers: whoever computes attention, they are zero.
#ifndef LORICA_RUNTIME_CUDA_ATTENTION_UNCOVERED_H_
#define LORICA_RUNTIME_CUDA_ATTENTION_UNCOVERED_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/backend.h"
#include "runtime/cuda/kernels.h"

namespace lorica::cuda {

enum class Side : uint8_t { kQueries, kKeys };

// Calls body(rows) for the rows of [0, rows) that no segment covers.
template <typename Body>
void ForUncovered(const ArrayView<Segment>& segments, Side side, int64_t rows,
                  const Body& body) {
  std::vector<std::pair<int64_t, int64_t>> covered;
  for (const Segment& s : segments) {
    if (side == Side::kQueries) {
      covered.emplace_back(s.first_query, s.first_query + s.num_queries);
    } else {
      covered.emplace_back(s.first_key, s.first_key + s.num_keys);
    }
  }
  covered.emplace_back(rows, rows);
  std::sort(covered.begin(), covered.end());
  int64_t end = 0;
  for (const auto& [first, last] : covered) {
    if (first > end) body(Range{end, first});
    end = std::max(end, last);
  }
}

// Recorded work has the same such rows in every run.
inline void ZeroUncovered(Queue* queue, const ArrayView<Segment>& segments,
                          Side side, const View& matrix) {
  ForUncovered(segments, side, matrix.rows,
               [&](Range rows) { Fill(queue, matrix.Rows(rows), 0.0f); });
}

// Of the results, out and lse.
inline void ZeroUncovered(Queue* queue, const AttentionArgs& args) {
  ZeroUncovered(queue, args.segments, Side::kQueries, args.out);
  ForUncovered(args.segments, Side::kQueries, args.q.rows,
               [&](Range rows) { Fill(queue, args.lse.Cols(rows), 0.0f); });
}

// Of the results, dq, dk and dv.
inline void ZeroUncovered(Queue* queue, const AttentionBackwardArgs& args) {
  const ArrayView<Segment>& segments = args.forward.segments;
  ZeroUncovered(queue, segments, Side::kQueries, args.dq);
  ZeroUncovered(queue, segments, Side::kKeys, args.dk);
  ZeroUncovered(queue, segments, Side::kKeys, args.dv);
}

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_ATTENTION_UNCOVERED_H_
