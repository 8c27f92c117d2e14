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

// sums[r] = the product of row r of a, F32 and dense, and one row of b. b is
// read as a single stream: memory delivers one twice as fast as four.
template <int kRows, typename TB>
HWY_INLINE void Dots(const float* a, int64_t k, const TB* b, float* sums) {
  const Floats d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  FloatVec even[kRows];
  FloatVec odd[kRows];  // Two chains each, as a multiply-add takes four cycles.
  for (int r = 0; r < kRows; ++r) even[r] = odd[r] = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * step <= k; i += 2 * step) {
    const auto b0 = Load(b + i, Whole());
    const auto b1 = Load(b + i + step, Whole());
    for (int r = 0; r < kRows; ++r) {
      const float* at = a + r * k + i;
      even[r] = hn::MulAdd(Load(at, Whole()), b0, even[r]);
      odd[r] = hn::MulAdd(Load(at + step, Whole()), b1, odd[r]);
    }
  }
  ForVectors(k - i, [&](auto lanes, int64_t j) HWY_ATTR {
    const auto vb = Load(b + i + j, lanes);
    for (int r = 0; r < kRows; ++r) {
      even[r] = hn::MulAdd(Load(a + r * k + i + j, lanes), vb, even[r]);
    }
  });
  for (int r = 0; r < kRows; ++r) {
    sums[r] = SumOfLanes(hn::Add(even[r], odd[r]));
  }
}

template <int kRows, typename TB, typename TY>
void ColsOf(const MatmulArgs& args, const float* a, Range cols) {
  for (int64_t col = cols.begin; col < cols.end; ++col) {
    float sums[kRows];
    Dots<kRows>(a, args.a.cols, args.b.Row<const TB>(col), sums);
    for (int r = 0; r < kRows; ++r) {
      TY& y = args.y.Row<TY>(r)[col];
      float value = args.scale * sums[r];
      if (args.bias.present()) {
        value += static_cast<float>(args.bias.As<const TB>()[col]);
      }
      if (args.update == Update::kAdd) value += static_cast<float>(y);
      y = TY(value);
    }
  }
}

template <typename TB, typename TY>
void ColsOfRows(const MatmulArgs& args, const float* a, Range cols) {
  static_assert(kMaxFewRows == 4);
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
}

// Columns `cols` of y; `a` holds the rows of args.a in F32.
void FewRowsCols(const MatmulArgs& args, const float* a, Range cols) {
  DispatchFloat(args.b.dtype, [&](auto tb) HWY_ATTR {
    DispatchFloat(args.y.dtype, [&](auto ty) HWY_ATTR {
      ColsOfRows<decltype(tb), decltype(ty)>(args, a, cols);
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
