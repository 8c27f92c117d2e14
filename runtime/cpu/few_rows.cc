#include <algorithm>
#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/matmul.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/queue.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/few_rows.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// Rows of b taken together: enough independent sums to hide the latency of a
// multiply-add and enough streams to keep memory busy.
constexpr int64_t kRowsOfB = 4;

// sums[r][c] = the product of row r of a, F32 and dense, and row c of b.
template <int kRows, int kCols, typename TB>
void Dots(const float* a, int64_t k, const TB* b, int64_t b_stride,
          float (*sums)[kRowsOfB]) {
  FloatVec sum[kRows][kCols];
  for (auto& row : sum) {
    for (auto& v : row) v = hn::Zero(Floats());
  }
  ForVectors(k, [&](auto lanes, int64_t i) HWY_ATTR {
    for (int c = 0; c < kCols; ++c) {
      const auto vb = Load(b + c * b_stride + i, lanes);
      for (int r = 0; r < kRows; ++r) {
        sum[r][c] = hn::MulAdd(Load(a + r * k + i, lanes), vb, sum[r][c]);
      }
    }
  });
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCols; ++c) sums[r][c] = SumOfLanes(sum[r][c]);
  }
}

template <int kRows, typename TB, typename TY>
void ColsOf(const MatmulArgs& args, const float* a, Range cols) {
  const int64_t k = args.a.cols;
  const int64_t stride = args.b.row_stride;
  int64_t col = cols.begin;
  while (col < cols.end) {
    float sums[kRows][kRowsOfB];
    const TB* b = args.b.Row<const TB>(col);
    int64_t taken = 1;
    if (cols.end - col >= kRowsOfB) {
      taken = kRowsOfB;
      Dots<kRows, kRowsOfB>(a, k, b, stride, sums);
    } else {
      Dots<kRows, 1>(a, k, b, stride, sums);
    }
    for (int r = 0; r < kRows; ++r) {
      TY* y = args.y.Row<TY>(r) + col;
      for (int64_t c = 0; c < taken; ++c) {
        float value = args.scale * sums[r][c];
        if (args.update == Update::kAdd) value += static_cast<float>(y[c]);
        y[c] = TY(value);
      }
    }
    col += taken;
  }
}

// Columns `cols` of y; `a` holds the rows of args.a in F32.
void FewRowsCols(const MatmulArgs& args, const float* a, Range cols) {
  DispatchFloat(args.b.dtype, [&](auto tb) HWY_ATTR {
    DispatchFloat(args.y.dtype, [&](auto ty) HWY_ATTR {
      using TB = decltype(tb);
      using TY = decltype(ty);
      switch (args.y.rows) {
        case 1:
          return ColsOf<1, TB, TY>(args, a, cols);
        case 2:
          return ColsOf<2, TB, TY>(args, a, cols);
        case 3:
          return ColsOf<3, TB, TY>(args, a, cols);
        default:
          return ColsOf<4, TB, TY>(args, a, cols);
      }
    });
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(FewRowsCols);

void FewRowsMatmulNT(Queue* queue, const MatmulArgs& args) {
  const View& a = args.a;
  const View wide = {queue->ScratchFor<float>(ScratchUse::kWideA, a.elements()),
                     DType::kF32, a.rows, a.cols, a.cols};
  Convert(queue, a, 1.0f, wide);
  const int64_t n = args.y.cols;
  ParallelRanges(*queue, n, 16, n * a.cols, [&](Range cols) {
    HWY_DYNAMIC_DISPATCH(FewRowsCols)(args, wide.As<const float>(), cols);
  });
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
