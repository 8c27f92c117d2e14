// Sums and maxima over the threads of a warp and of a block, the same in every
// thread and in an order that depends on the number of threads alone.
#ifndef LORICA_RUNTIME_CUDA_REDUCE_CUH_
#define LORICA_RUNTIME_CUDA_REDUCE_CUH_

#include <cstdint>

#include "cuda_target.h"

namespace lorica::cuda {

inline constexpr int kWarp = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

struct Plus {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Larger {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over groups of kLanes neighbouring lanes; all lanes of the warp call it.
template <int kLanes = kWarp, typename T, typename Op>
__device__ __forceinline__ T WarpReduce(T value, Op op) {
#pragma unroll
  for (int by = kLanes / 2; by > 0; by /= 2) {
    value = op(value, __shfl_xor_sync(kAllLanes, value, by));
  }
  return value;
}

// Every thread of a block of whole warps calls it, once in a kernel for each
// type, operation and kCall, as no barrier follows the last reads.
template <int kCall = 0, typename T, typename Op>
__device__ __forceinline__ T BlockReduce(T value, Op op) {
  __shared__ T of_warp[kWarp];
  value = WarpReduce(value, op);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  T result = of_warp[0];
  for (unsigned i = 1; i < blockDim.x / kWarp; ++i) {
    result = op(result, of_warp[i]);
  }
  return result;
}

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_REDUCE_CUH_
