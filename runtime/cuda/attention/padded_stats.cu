#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/attention/padded_stats.h"
#include "runtime/cuda/pack.cuh"

namespace lorica::cuda {
namespace {

constexpr int kThreads = 256;

// A thread takes a pack of tokens of a head of a record. Where they begin in
// lse is the records' business, and need not be a multiple of 16 bytes.
struct Slots {
  int64_t token;  // Of the record.
  int64_t record;
  int64_t head;

  __device__ float* In(const PaddedStats& stats) const {
    return stats.data + (record * stats.heads + head) * stats.longest + token;
  }
  template <typename T>
  __device__ T* In(const View& lse, const PaddedStats& stats) const {
    return lse.Row<T>(head) + stats.starts[record] + token;
  }
  // Of the record, from the first token on.
  __device__ int64_t Count(const PaddedStats& stats) const {
    return stats.lengths[record] - token;
  }
};

__device__ __forceinline__ Slots MySlots() {
  return {(int64_t{blockIdx.x} * kThreads + threadIdx.x) * kShortPack,
          blockIdx.z, blockIdx.y};
}

__global__ void __launch_bounds__(kThreads)
    UnpadKernel(PaddedStats stats, View lse) {
  const Slots slots = MySlots();
  const int64_t count = slots.Count(stats);
  if (count <= 0) return;
  StorePart(LoadPart<kShortPack>(slots.In(stats), count),
            slots.In<float>(lse, stats), count);
}

__global__ void __launch_bounds__(kThreads)
    PadKernel(View lse, PaddedStats stats) {
  const Slots slots = MySlots();
  if (slots.token >= stats.longest) return;
  StorePart(LoadPart<kShortPack>(slots.In<const float>(lse, stats),
                                 slots.Count(stats), INFINITY),
            slots.In(stats), stats.longest - slots.token);
}

LaunchShape ShapeOf(const PaddedStats& stats) {
  constexpr int64_t kTokens = int64_t{kThreads} * kShortPack;
  return {.grid = dim3(
              static_cast<unsigned>((stats.longest + kTokens - 1) / kTokens),
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
