// Kernels whose packs do not know of each other.
#ifndef LORICA_RUNTIME_CUDA_ELEMENTWISE_CUH_
#define LORICA_RUNTIME_CUDA_ELEMENTWISE_CUH_

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "cuda_target.h"
#include "runtime/cuda/pack.cuh"

namespace lorica::cuda {

inline constexpr int64_t kElementwiseThreads = 256;

// op.Apply<kN>(row, first column) for every pack of a row of `cols` columns,
// and one by one for the columns that make none.
template <int kN, typename Op>
__device__ __forceinline__ void ApplyPart(const Op& op, int64_t row,
                                          int64_t col, int64_t cols) {
  if (kN == 1 || col + kN <= cols) {
    op.template Apply<kN>(row, col);
  } else {
#pragma unroll 1
    for (; col < cols; ++col) op.template Apply<1>(row, col);
  }
}

// Its blocks are as wide as rows are long, up to all threads.
template <int kN, typename Op>
__global__ void __launch_bounds__(kElementwiseThreads)
    ElementwiseKernel(const Op op, int64_t rows, int64_t cols) {
  const int64_t col = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kN;
  if (col >= cols) return;
  const int64_t first = int64_t{blockIdx.y} * blockDim.y + threadIdx.y;
  for (int64_t row = first; row < rows;
       row += int64_t{gridDim.y} * blockDim.y) {
    ApplyPart<kN>(op, row, col, cols);
  }
}

// Enqueues it.
template <int kN, typename Op>
void ForPacks(Queue* queue, int64_t rows, int64_t cols, const Op& op) {
  constexpr int64_t kMaxGridRows = 65535;
  const int64_t packs = (cols + kN - 1) / kN;
  int64_t width = kElementwiseThreads;
  while (width >= 2 * packs && width > 1) width /= 2;
  const int64_t height = kElementwiseThreads / width;
  const int64_t grid_rows =
      std::min(kMaxGridRows, (rows + height - 1) / height);
  Launch(queue,
         {.grid = dim3(static_cast<unsigned>((packs + width - 1) / width),
                       static_cast<unsigned>(grid_rows)),
          .block = dim3(static_cast<unsigned>(width),
                        static_cast<unsigned>(height))},
         ElementwiseKernel<kN, Op>, op, rows, cols);
}

// Enqueues Op<T>{args} on the elements of the first of `views`, which are all
// that it moves and have one type T.
template <template <typename> class Op, typename Args>
void ForElements(Queue* queue, std::initializer_list<View> views,
                 const Args& args) {
  const View& like = *views.begin();
  DispatchFloat(like.dtype, [&]<typename T>() {
    DispatchPack(views, [&]<int kN>() {
      ForPacks<kN>(queue, like.rows, like.cols, Op<T>{args});
    });
  });
}

// A dense matrix as one long row.
inline View AsOneRow(View v) {
  if (v.dense()) v = {v.data, v.dtype, 1, v.elements(), v.elements()};
  return v;
}

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_ELEMENTWISE_CUH_
