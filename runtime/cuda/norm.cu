#include <algorithm>
#include <cstdint>
#include <initializer_list>

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

// What a block adds up; see BlockReduce.
enum Sums : int { kProducts, kElements };

// A pack of x, or of x + delta stored in sum: the rounded sum is what gets
// normalized, as it is what backward will see.
template <typename T, int kN, typename Args>
__device__ __forceinline__ Pack<kN> LoadSum(const Args& args, int64_t row,
                                            int64_t col) {
  Pack<kN> sum = Load<kN>(args.x.template Row<const T>(row) + col);
  if (!args.delta.present()) return sum;
  const Pack<kN> delta = Load<kN>(args.delta.template Row<const T>(row) + col);
  for (int j = 0; j < kN; ++j) sum.v[j] += delta.v[j];
  Store(sum, args.sum.template Row<T>(row) + col);
  return Rounded<T>(sum);
}

template <typename T, int kN, typename Args>
__global__ void __launch_bounds__(1024)
    NormKernel(const __grid_constant__ Args args) {
  const int64_t row = blockIdx.x;
  const int64_t cols = args.x.cols;
  Pack<kN> held[kHeld<kN>];
  float elements = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    held[i] = LoadSum<T, kN>(args, row, col);
    for (const float v : held[i].v) elements += v;
  }
  float mean = 0.0f;
  if constexpr (Args::kCenters) {
    mean = BlockReduce<kElements>(elements, Plus()) / static_cast<float>(cols);
    if (threadIdx.x == 0) args.mean.template As<float>()[row] = mean;
  }
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    if (ColumnOf<kN>(i) >= cols) break;
    for (float& v : held[i].v) {
      if constexpr (Args::kCenters) v -= mean;
      squares += v * v;
    }
  }
  const float mean_square =
      BlockReduce<kProducts>(squares, Plus()) / static_cast<float>(cols);
  const float rstd = 1.0f / sqrtf(mean_square + args.epsilon);
  if (threadIdx.x == 0) args.rstd.template As<float>()[row] = rstd;
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    const Pack<kN> weight =
        Load<kN>(args.weight.template As<const float>() + col);
    for (int j = 0; j < kN; ++j) held[i].v[j] *= rstd * weight.v[j];
    if constexpr (Args::kCenters) {
      const Pack<kN> bias =
          Load<kN>(args.bias.template As<const float>() + col);
      for (int j = 0; j < kN; ++j) held[i].v[j] += bias.v[j];
    }
    Store(held[i], args.y.template Row<T>(row) + col);
  }
}

// With g = w dy: dx = rstd g - x rstd^3 mean(g x). Where the norm centers, x is
// the difference from its mean, and g in the first term that from mean(g).
template <typename T, typename TDy, int kN, typename Args>
__global__ void __launch_bounds__(1024)
    NormBackwardKernel(const __grid_constant__ Args args) {
  const int64_t row = blockIdx.x;
  const int64_t cols = args.x.cols;
  Pack<kN> x[kHeld<kN>];
  Pack<kN> g[kHeld<kN>];
  float mean = 0.0f;
  if constexpr (Args::kCenters) {
    mean = args.mean.template As<const float>()[row];
  }
  float dot = 0.0f;
  float elements = 0.0f;  // Of g.
#pragma unroll
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    x[i] = Load<kN>(args.x.template Row<const T>(row) + col);
    g[i] = Load<kN>(args.dy.template Row<const TDy>(row) + col);
    const Pack<kN> weight =
        Load<kN>(args.weight.template As<const float>() + col);
    for (int j = 0; j < kN; ++j) {
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
  for (int i = 0; i < kHeld<kN>; ++i) {
    const int64_t col = ColumnOf<kN>(i);
    if (col >= cols) break;
    T* to = args.dx.template Row<T>(row) + col;
    for (int j = 0; j < kN; ++j) {
      if constexpr (Args::kCenters) g[i].v[j] -= mean_g;
      g[i].v[j] = g[i].v[j] * rstd - x[i].v[j] * back;
    }
    if (args.update == Update::kAdd) {
      const Pack<kN> before = Load<kN>(to);
      for (int j = 0; j < kN; ++j) g[i].v[j] += before.v[j];
    }
    Store(g[i], to);
  }
}

// The norm on the widest packs that all of the views allow.
template <typename Args>
void Norm(Queue* queue, const Args& args, std::initializer_list<View> views) {
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    DispatchPack(views, [&]<int kN>() {
      Launch(queue, RowBlocks<kN>(args.x.rows, args.x.cols),
             NormKernel<T, kN, Args>, args);
    });
  });
}

template <typename Args>
void NormBackward(Queue* queue, const Args& args) {
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    DispatchFloat(args.dy.dtype, [&]<typename TDy>() {
      DispatchPack({args.dy, args.x, args.weight, args.dx}, [&]<int kN>() {
        Launch(queue, RowBlocks<kN>(args.x.rows, args.x.cols),
               NormBackwardKernel<T, TDy, kN, Args>, args);
      });
    });
  });
}

}  // namespace

void RmsNorm(Queue* queue, const RmsNormArgs& args) {
  Norm(queue, args, {args.x, args.delta, args.weight, args.sum, args.y});
}

void RmsNormBackward(Queue* queue, const RmsNormBackwardArgs& args) {
  NormBackward(queue, args);
}

void LayerNorm(Queue* queue, const LayerNormArgs& args) {
  Norm(queue, args,
       {args.x, args.delta, args.weight, args.bias, args.sum, args.y});
}

void LayerNormBackward(Queue* queue, const LayerNormBackwardArgs& args) {
  NormBackward(queue, args);
}

}  // namespace lorica::cuda
