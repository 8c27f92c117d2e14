#include <algorithm>
#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"

namespace lorica::cuda {
namespace {

template <typename T>
struct FillOp {
  View y;
  float value;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    Pack<kN> pack;
    for (float& v : pack.v) v = value;
    Store(pack, y.Row<T>(row) + col);
  }
};

template <typename From, typename To>
struct ConvertOp {
  View x;
  float scale;
  View y;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    Pack<kN> pack = Load<kN>(x.Row<const From>(row) + col);
    for (float& v : pack.v) v *= scale;
    Store(pack, y.Row<To>(row) + col);
  }
};

template <typename From, typename To>
struct AddOp {
  View x;
  View y;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    const Pack<kN> term = Load<kN>(x.Row<const From>(row) + col);
    Pack<kN> sum = Load<kN>(y.Row<To>(row) + col);
    for (int i = 0; i < kN; ++i) sum.v[i] += term.v[i];
    Store(sum, y.Row<To>(row) + col);
  }
};

constexpr int kNormThreads = 256;
// Elements per block of a squared norm, whatever the device.
constexpr int64_t kNormBlock = 32 * kNormThreads;

__global__ void __launch_bounds__(kNormThreads)
    SquaresKernel(const float* x, int64_t n, double* partials) {
  const int64_t first = int64_t{blockIdx.x} * kNormBlock;
  const int64_t end = first + kNormBlock < n ? first + kNormBlock : n;
  double sum = 0.0;
  for (int64_t i = first + threadIdx.x; i < end; i += kNormThreads) {
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  sum = BlockReduce(sum, Plus());
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kNormThreads)
    SumKernel(const double* terms, int64_t n, double* result) {
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < n; i += kNormThreads) sum += terms[i];
  sum = BlockReduce(sum, Plus());
  if (threadIdx.x == 0) *result = sum;
}

// Dense operands of one shape become long rows.
void Flatten(View* x, View* y) {
  if (!x->dense() || !y->dense()) return;
  *x = AsOneRow(*x);
  *y = AsOneRow(*y);
}

}  // namespace

void Fill(Queue* queue, View y, float value) {
  y = AsOneRow(y);
  DispatchFloat(y.dtype, [&]<typename T>() {
    DispatchPack({y}, [&]<int kN>() {
      ForPacks<kN>(queue, y.rows, y.cols, FillOp<T>{y, value});
    });
  });
}

void Convert(Queue* queue, View x, float scale, View y) {
  Flatten(&x, &y);
  DispatchFloat(x.dtype, [&]<typename From>() {
    DispatchFloat(y.dtype, [&]<typename To>() {
      DispatchPack({x, y}, [&]<int kN>() {
        ForPacks<kN>(queue, y.rows, y.cols, ConvertOp<From, To>{x, scale, y});
      });
    });
  });
}

void Add(Queue* queue, View x, View y) {
  Flatten(&x, &y);
  DispatchFloat(x.dtype, [&]<typename From>() {
    DispatchFloat(y.dtype, [&]<typename To>() {
      DispatchPack({x, y}, [&]<int kN>() {
        ForPacks<kN>(queue, y.rows, y.cols, AddOp<From, To>{x, y});
      });
    });
  });
}

void SquaredNormInto(Queue* queue, View x, double* result) {
  const int64_t n = x.elements();
  const int64_t blocks = (n + kNormBlock - 1) / kNormBlock;
  auto* partials = static_cast<double*>(ScratchFor(
      queue, ScratchUse::kPartials,
      static_cast<size_t>(std::max<int64_t>(blocks, 1)) * sizeof(double)));
  Launch(queue,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .block = dim3(kNormThreads)},
         SquaresKernel, x.As<const float>(), n, partials);
  Launch(queue, {.grid = dim3(1), .block = dim3(kNormThreads)}, SumKernel,
         partials, blocks, result);
}

}  // namespace lorica::cuda
