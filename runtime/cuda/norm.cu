#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"

// A block takes a row and holds it in registers between its sum and its result.

namespace lorica::cuda {
namespace {

// Packs a thread holds, so that 1024 threads hold kMaxNormCols columns.
constexpr int kHeld = 2;
static_assert(1024 * kHeld * kWidePack >= kMaxNormCols);

LaunchShape RowBlocks(int64_t rows, int64_t cols) {
  constexpr int64_t kColumns = kHeld * kWidePack;
  const int64_t threads = (cols + kColumns - 1) / kColumns;
  return {.grid = dim3(static_cast<unsigned>(rows)),
          .block = dim3(
              static_cast<unsigned>((threads + kWarp - 1) / kWarp * kWarp))};
}

// Column of this thread's held pack number i.
__device__ __forceinline__ int64_t ColumnOf(int i) {
  return (int64_t{threadIdx.x} + int64_t{i} * blockDim.x) * kWidePack;
}

// What a block adds up; see BlockReduce.
enum Sums : int { kProducts, kElements };

using WidePack = Pack<kWidePack>;

// The pack from `col` on of x, or of x + delta stored in sum: the rounded sum
// is what gets normalized, as it is what backward will see. Zero past the row.
template <typename T, typename Args>
__device__ __forceinline__ WidePack LoadSum(const Args& args, int64_t row,
                                            int64_t col) {
  const int64_t count = args.x.cols - col;
  WidePack sum =
      LoadPart<kWidePack>(args.x.template Row<const T>(row) + col, count);
  if (!args.delta.present()) return sum;
  const WidePack delta =
      LoadPart<kWidePack>(args.delta.template Row<const T>(row) + col, count);
  for (int j = 0; j < kWidePack; ++j) sum.v[j] += delta.v[j];
  StorePart(sum, args.sum.template Row<T>(row) + col, count);
  return Rounded<T>(sum);
}

template <typename T, typename Args>
__global__ void __launch_bounds__(1024)
    NormKernel(const __grid_constant__ Args args) {
  const int64_t row = blockIdx.x;
  const int64_t cols = args.x.cols;
  WidePack held[kHeld];
  float elements = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t col = ColumnOf(i);
    if (col >= cols) break;
    held[i] = LoadSum<T>(args, row, col);
    for (const float v : held[i].v) elements += v;
  }
  float mean = 0.0f;
  if constexpr (Args::kCenters) {
    mean = BlockReduce<kElements>(elements, Plus()) / static_cast<float>(cols);
    if (threadIdx.x == 0) args.mean.template As<float>()[row] = mean;
  }
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t col = ColumnOf(i);
    if (col >= cols) break;
    for (int j = 0; j < kWidePack; ++j) {
      float& v = held[i].v[j];
      if constexpr (Args::kCenters) v = col + j < cols ? v - mean : 0.0f;
      squares += v * v;
    }
  }
  const float mean_square =
      BlockReduce<kProducts>(squares, Plus()) / static_cast<float>(cols);
  const float rstd = 1.0f / sqrtf(mean_square + args.epsilon);
  if (threadIdx.x == 0) args.rstd.template As<float>()[row] = rstd;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t col = ColumnOf(i);
    if (col >= cols) break;
    const int64_t count = cols - col;
    const WidePack weight = LoadPart<kWidePack>(
        args.weight.template As<const float>() + col, count);
    for (int j = 0; j < kWidePack; ++j) held[i].v[j] *= rstd * weight.v[j];
    if constexpr (Args::kCenters) {
      const WidePack bias = LoadPart<kWidePack>(
          args.bias.template As<const float>() + col, count);
      for (int j = 0; j < kWidePack; ++j) held[i].v[j] += bias.v[j];
    }
    StorePart(held[i], args.y.template Row<T>(row) + col, count);
  }
}

// With g = w dy: dx = rstd g - x rstd^3 mean(g x). Where the norm centers, x is
// the difference from its mean, and g in the first term that from mean(g). Past
// the row g is zero.
template <typename T, typename TDy, typename Args>
__global__ void __launch_bounds__(1024)
    NormBackwardKernel(const __grid_constant__ Args args) {
  const int64_t row = blockIdx.x;
  const int64_t cols = args.x.cols;
  WidePack x[kHeld];
  WidePack g[kHeld];
  float mean = 0.0f;
  if constexpr (Args::kCenters) {
    mean = args.mean.template As<const float>()[row];
  }
  float dot = 0.0f;
  float elements = 0.0f;  // Of g.
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t col = ColumnOf(i);
    if (col >= cols) break;
    const int64_t count = cols - col;
    x[i] = LoadPart<kWidePack>(args.x.template Row<const T>(row) + col, count);
    g[i] =
        LoadPart<kWidePack>(args.dy.template Row<const TDy>(row) + col, count);
    const WidePack weight = LoadPart<kWidePack>(
        args.weight.template As<const float>() + col, count);
    for (int j = 0; j < kWidePack; ++j) {
      if constexpr (Args::kCenters) x[i].v[j] -= mean;
      g[i].v[j] *= weight.v[j];
      dot += g[i].v[j] * x[i].v[j];
      elements += g[i].v[j];
    }
  }
  const float rstd = args.rstd.template As<const float>()[row];
  const float mean_dot =
      BlockReduce<kProducts>(dot, Plus()) / static_cast<float>(cols);
  const float back = mean_dot * rstd * rstd * rstd;
  float mean_g = 0.0f;
  if constexpr (Args::kCenters) {
    mean_g =
        BlockReduce<kElements>(elements, Plus()) / static_cast<float>(cols);
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t col = ColumnOf(i);
    if (col >= cols) break;
    const int64_t count = cols - col;
    T* to = args.dx.template Row<T>(row) + col;
    for (int j = 0; j < kWidePack; ++j) {
      if constexpr (Args::kCenters) g[i].v[j] -= mean_g;
      g[i].v[j] = g[i].v[j] * rstd - x[i].v[j] * back;
    }
    if (args.update == Update::kAdd) {
      const WidePack before = LoadPart<kWidePack>(to, count);
      for (int j = 0; j < kWidePack; ++j) g[i].v[j] += before.v[j];
    }
    StorePart(g[i], to, count);
  }
}

template <typename Args>
void Norm(Queue* queue, const Args& args) {
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    Launch(queue, RowBlocks(args.x.rows, args.x.cols), NormKernel<T, Args>,
           args);
  });
}

template <typename Args>
void NormBackward(Queue* queue, const Args& args) {
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    DispatchFloat(args.dy.dtype, [&]<typename TDy>() {
      Launch(queue, RowBlocks(args.x.rows, args.x.cols),
             NormBackwardKernel<T, TDy, Args>, args);
    });
  });
}

}  // namespace

void RmsNorm(Queue* queue, const RmsNormArgs& args) { Norm(queue, args); }

void RmsNormBackward(Queue* queue, const RmsNormBackwardArgs& args) {
  NormBackward(queue, args);
}

void LayerNorm(Queue* queue, const LayerNormArgs& args) { Norm(queue, args); }

void LayerNormBackward(Queue* queue, const LayerNormBackwardArgs& args) {
  NormBackward(queue, args);
}

}  // namespace lorica::cuda
