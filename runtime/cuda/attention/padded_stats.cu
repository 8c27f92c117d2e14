#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/attention/padded_stats.h"

namespace lorica::cuda {
namespace {

constexpr int kThreads = 256;

// A thread takes a token of a head of a record.
struct Slot {
  int64_t token;  // Of the record.
  int64_t record;
  int64_t head;

  __device__ float& At(const PaddedStats& stats) const {
    return stats.data[(record * stats.heads + head) * stats.longest + token];
  }
};

__device__ __forceinline__ Slot MySlot() {
  return {int64_t{blockIdx.x} * kThreads + threadIdx.x, blockIdx.z, blockIdx.y};
}

__global__ void __launch_bounds__(kThreads)
    UnpadKernel(PaddedStats stats, View lse) {
  const Slot slot = MySlot();
  if (slot.token >= stats.lengths[slot.record]) return;
  lse.Row<float>(slot.head)[stats.starts[slot.record] + slot.token] =
      slot.At(stats);
}

__global__ void __launch_bounds__(kThreads)
    PadKernel(View lse, PaddedStats stats) {
  const Slot slot = MySlot();
  if (slot.token >= stats.longest) return;
  slot.At(stats) = slot.token < stats.lengths[slot.record]
                       ? lse.Row<const float>(
                             slot.head)[stats.starts[slot.record] + slot.token]
                       : INFINITY;
}

LaunchShape ShapeOf(const PaddedStats& stats) {
  return {.grid = dim3(
              static_cast<unsigned>((stats.longest + kThreads - 1) / kThreads),
              static_cast<unsigned>(stats.heads),
              static_cast<unsigned>(stats.records)),
          .block = dim3(kThreads)};
}

}  // namespace

void Unpad(Queue* queue, const PaddedStats& stats, View lse) {
  Launch(queue, ShapeOf(stats), UnpadKernel, stats, lse);
}

void Pad(Queue* queue, View lse, const PaddedStats& stats) {
  Launch(queue, ShapeOf(stats), PadKernel, lse, stats);
}

}  // namespace lorica::cuda
