// What the launch functions of the kernels need of the device's queue. The
// queue's own file defines these; a test that runs the kernels without one
// defines its own.
#ifndef LORICA_RUNTIME_CUDA_LAUNCH_H_
#define LORICA_RUNTIME_CUDA_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/backend.h"

namespace lorica::cuda {

// The stream that the queue's kernels run on.
cudaStream_t StreamOf(Queue* queue);

// Who uses a scratch block. Entries that call each other must differ here.
enum class ScratchUse : uint8_t {
  kLogits,           // A tile of logits.
  kPartials,         // Terms of a reduction, one per block.
  kRowDots,          // Attention: dout . out of every row and head.
  kForwardRecords,   // Attention by a library: where records are.
  kBackwardRecords,  // The same of its gradient.
  kPaddedStats,      // Attention by a library: its statistics.
  kSum,              // A sum of products before it is rounded.
  kWorkspace,        // A library's, during one call.
  kCount,
};

// Device memory of at least `bytes`, at a multiple of 256, that keeps its
// contents, in the order of the stream, until the next request of the same use.
void* ScratchFor(Queue* queue, ScratchUse use, size_t bytes);

// Segments of work that is recorded, at most.
inline constexpr int64_t kMaxRecordedSegments = 512;

// Numbers that kernels read of the segments of a pass, and the first words of
// their names.
enum class TableKind : uint8_t { kTiles, kLibrary };
struct RecordTable {
  std::vector<int64_t> name;  // Tables of the same name have the same `fill`.
  size_t bytes = 0;
  std::function<void(const ArrayView<Segment>&, void* table)> fill;
};

// Whether what is enqueued now is part of a recording or of its rehearsal. Else
// numbers may travel with the kernels' arguments.
bool IsRecorded(Queue* queue);
// Where the device has, whenever the work being recorded runs, the table of the
// segments that it runs with; `segments` are those of a rehearsal.
const void* RecordedTable(Queue* queue, const RecordTable& table,
                          const ArrayView<Segment>& segments);

// Fatal unless `error` is cudaSuccess. `kernel` is the function on the host
// that stands for the kernel that was launched.
void CheckLaunch(cudaError_t error, const void* kernel);

// How many threads run a kernel. A grid of no blocks is not launched.
struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;  // Dynamic shared memory of a block.
};

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_LAUNCH_H_
