// What kernels are written against, compiled by the host's C++ compiler for
// the simulator: the same names as in runtime/cuda/target, where they are
// explained, and the CUDA keywords and built-in functions that the kernels use.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_TARGET_CUDA_TARGET_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_TARGET_CUDA_TARGET_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>

#include "runtime/cuda/launch.h"
#include "tests/support/cuda_sim/block.h"
#include "tests/support/cuda_sim/simulator.h"

// Blocks run one after another, so what a block shares can be static.
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (::lorica::cuda_sim::ThreadIndex())
#define blockIdx (::lorica::cuda_sim::BlockIndex())
#define blockDim (::lorica::cuda_sim::BlockExtent())
#define gridDim (::lorica::cuda_sim::GridExtent())
#define LORICA_SITE (::lorica::cuda_sim::Site{__FILE__, __LINE__})
#define __syncthreads() ::lorica::cuda_sim::SyncThreads(LORICA_SITE)
#define __syncwarp() ::lorica::cuda_sim::SyncWarp(~0u, LORICA_SITE)
#define __shfl_xor_sync(mask, value, by) \
  ::lorica::cuda_sim::ShuffleXor(mask, value, by, LORICA_SITE)

namespace lorica::cuda_sim {

template <typename T>
T ShuffleXor(uint32_t mask, T value, int by, Site site) {
  LaneWords mine = {};
  static_assert(sizeof(T) <= sizeof mine);
  std::memcpy(mine.words, &value, sizeof value);
  const LaneWords* shown = Exchange(mask, mine, site);
  ReadLane(shown, mask, Lane() ^ by, &value, sizeof value);
  return value;
}

// A call's arguments, converted to the kernel's parameters.
template <typename... Params>
struct Arguments {
  void (*kernel)(Params...);
  std::tuple<Params...> values;

  static void RunThread(void* arguments) {
    const auto* self = static_cast<const Arguments*>(arguments);
    std::apply(self->kernel, self->values);
  }
};

}  // namespace lorica::cuda_sim

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }

namespace lorica::cuda {

using std::max;
using std::min;

template <typename... Params, typename... Args>
void Launch(Queue* queue, const LaunchShape& shape, void (*kernel)(Params...),
            Args... args) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  using Arguments = cuda_sim::Arguments<Params...>;
  const void* const address = reinterpret_cast<const void*>(kernel);
  const cudaError_t error = cuda_sim::Submit(
      StreamOf(queue), {.kernel = address,
                        .grid = shape.grid,
                        .block = shape.block,
                        .shared_bytes = shape.shared_bytes,
                        .arguments = std::make_shared<Arguments>(
                            Arguments{kernel, {static_cast<Params>(args)...}}),
                        .argument_bytes = sizeof(Arguments),
                        .run_thread = Arguments::RunThread});
  CheckLaunch(error, address);
}

inline unsigned char* DynamicShared() { return cuda_sim::SharedBytes(); }

using cuda_sim::CommitCopies;
using cuda_sim::CopyAsync16;
template <int kGroups>
void WaitForCopies() {
  cuda_sim::WaitForCopies(kGroups);
}

// Row l of the 32 rows of eight elements that the lanes of a warp show.
inline const cuda_sim::LaneWords* ShowRows(const void* row) {
  cuda_sim::LaneWords mine = {};
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
    cuda_sim::Report("a matrix row is not at a multiple of 16 bytes");
    row = nullptr;
  }
  if (row != nullptr) {
    const uint4 words = *static_cast<const uint4*>(row);
    std::memcpy(mine.words, &words, sizeof words);
  }
  return cuda_sim::Exchange(~0u, mine, LORICA_SITE);
}

inline void LoadMatrices(uint32_t (&r)[4], const void* row) {
  const cuda_sim::LaneWords* rows = ShowRows(row);
  const int lane = cuda_sim::Lane();
  for (int i = 0; i < 4; ++i) {
    uint32_t words[4];
    cuda_sim::ReadLane(rows, ~0u, 8 * i + lane / 4, words, sizeof words);
    r[i] = words[lane % 4];
  }
}

inline void LoadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  const cuda_sim::LaneWords* rows = ShowRows(row);
  const int lane = cuda_sim::Lane();
  const auto element = [&](int from, int col) {
    uint16_t elements[8];
    cuda_sim::ReadLane(rows, ~0u, from, elements, sizeof elements);
    return static_cast<uint32_t>(elements[col]);
  };
  for (int i = 0; i < 4; ++i) {
    const int from = 8 * i + 2 * (lane % 4);
    r[i] = element(from, lane / 4) | element(from + 1, lane / 4) << 16;
  }
}

inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                    uint32_t b1) {
  cuda_sim::MmaBf16(d, a, b0, b1, LORICA_SITE);
}

}  // namespace lorica::cuda

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_TARGET_CUDA_TARGET_H_
