#include <algorithm>
#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"

// A block takes a row and holds it in registers between its sum and its result.

namespace lorica::cuda {
namespace {

// Packs a thread holds, so that 1024 threads hold kMaxNormCols columns.
template <int kN>
inline constexpr int kHeld = kN == 1 ? 16 : 2;
static_assert(1024 * kHeld<1> >= kMaxNormCols);
static_assert(1024 * kHeld<kWidePack> * kWidePack >= kMaxNormCols);

template <int kN>
LaunchShape RowBlocks(int64_t rows, int64_t cols) {
  const int64_t held = kHeld<kN> * kN;
  const int64_t threads = (cols + held - 1) / held;
  return {.grid = dim3(static_cast<unsigned>(rows)),
          .block = dim3(
              static_cast<unsigned>((threads + kWarp - 1) / kWarp * kWarp))};
}

// Column of this thread's held pack number i.
template <int kN>
__device__ __forceinline__ int64_t ColumnOf(int i) {
  return (int64_t{threadIdx.x} + int64_t{i} * blockDim.x) * kN;
}

// The rounded sum is what gets normalized, as it is what backward will see.
template <typename T, int kN>
__global__ void __launch_bounds__(1024)
    RmsNormKernel(const __grid_constant__ RmsNormArgs args) {
  const int64_t row = blockIdx.x;
  const int64_t cols = args.x.cols;
  Pack<kN> held[kHeld<kN>];
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    held[i] = Load<kN>(args.x.Row<const T>(row) + col);
    if (args.delta.present()) {
      const Pack<kN> delta = Load<kN>(args.delta.Row<const T>(row) + col);
      for (int j = 0; j < kN; ++j) held[i].v[j] += delta.v[j];
      Store(held[i], args.sum.Row<T>(row) + col);
      held[i] = Rounded<T>(held[i]);
    }
    for (const float v : held[i].v) squares += v * v;
  }
  const float mean = BlockReduce(squares, Plus()) / static_cast<float>(cols);
  const float rstd = 1.0f / sqrtf(mean + args.epsilon);
  if (threadIdx.x == 0) args.rstd.As<float>()[row] = rstd;
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    const Pack<kN> weight = Load<kN>(args.weight.As<const float>() + col);
    for (int j = 0; j < kN; ++j) held[i].v[j] *= rstd * weight.v[j];
    Store(held[i], args.y.Row<T>(row) + col);
  }
}

// dx = rstd w dy - x rstd^3 mean(w dy x).
template <typename T, typename TDy, int kN>
__global__ void __launch_bounds__(1024)
    RmsNormBackwardKernel(const __grid_constant__ RmsNormBackwardArgs args) {
  const int64_t row = blockIdx.x;
  const int64_t cols = args.x.cols;
  Pack<kN> x[kHeld<kN>];
  Pack<kN> g[kHeld<kN>];  // w dy
  float dot = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    x[i] = Load<kN>(args.x.Row<const T>(row) + col);
    g[i] = Load<kN>(args.dy.Row<const TDy>(row) + col);
    const Pack<kN> weight = Load<kN>(args.weight.As<const float>() + col);
    for (int j = 0; j < kN; ++j) {
      g[i].v[j] *= weight.v[j];
      dot += g[i].v[j] * x[i].v[j];
    }
  }
  const float rstd = args.rstd.As<const float>()[row];
  const float mean = BlockReduce(dot, Plus()) / static_cast<float>(cols);
  const float back = mean * rstd * rstd * rstd;
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    T* to = args.dx.Row<T>(row) + col;
    for (int j = 0; j < kN; ++j) {
      g[i].v[j] = g[i].v[j] * rstd - x[i].v[j] * back;
    }
    if (args.update == Update::kAdd) {
      const Pack<kN> before = Load<kN>(to);
      for (int j = 0; j < kN; ++j) g[i].v[j] += before.v[j];
    }
    Store(g[i], to);
  }
}

}  // namespace

void RmsNorm(Queue* queue, const RmsNormArgs& args) {
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    DispatchPack({args.x, args.delta, args.weight, args.sum, args.y},
                 [&]<int kN>() {
                   Launch(queue, RowBlocks<kN>(args.x.rows, args.x.cols),
                          RmsNormKernel<T, kN>, args);
                 });
  });
}

void RmsNormBackward(Queue* queue, const RmsNormBackwardArgs& args) {
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    DispatchFloat(args.dy.dtype, [&]<typename TDy>() {
      DispatchPack({args.dy, args.x, args.weight, args.dx}, [&]<int kN>() {
        Launch(queue, RowBlocks<kN>(args.x.rows, args.x.cols),
               RmsNormBackwardKernel<T, TDy, kN>, args);
      });
    });
  });
}

}  // namespace lorica::cuda
