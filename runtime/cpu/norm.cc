#include <cmath>
#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/norm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// v - center. Elements beyond the row's end stay zero, as they are summed.
HWY_INLINE FloatVec Centered(FloatVec v, FloatVec center, Whole) {
  return hn::Sub(v, center);
}
HWY_INLINE FloatVec Centered(FloatVec v, FloatVec center, First first) {
  return hn::IfThenElseZero(hn::FirstN(Floats(), first.count),
                            hn::Sub(v, center));
}

// Elements of x as norms of Args take them: differences from the mean, or as
// they are.
template <typename Args, typename T, typename Lanes>
HWY_INLINE FloatVec LoadForNorm(const T* x, FloatVec center, Lanes lanes) {
  if constexpr (Args::kCenters) {
    return Centered(Load(x, lanes), center, lanes);
  } else {
    return Load(x, lanes);
  }
}

// The row's x, or x + delta stored in sum: the rounded sum is what gets
// normalized, as it is what backward will see.
template <typename T, typename Args>
const T* SumRow(const Args& args, int64_t row) {
  const T* x = args.x.template Row<const T>(row);
  if (!args.delta.present()) return x;
  const T* delta = args.delta.template Row<const T>(row);
  T* sum = args.sum.template Row<T>(row);
  ForVectors(args.x.cols, [&](auto lanes, int64_t i) HWY_ATTR {
    Store(hn::Add(Load(x + i, lanes), Load(delta + i, lanes)), sum + i, lanes);
  });
  return sum;
}

template <typename T>
float MeanOf(const T* x, int64_t n) {
  auto total = hn::Zero(Floats());
  ForVectors(n, [&](auto lanes, int64_t i)
                    HWY_ATTR { total = hn::Add(total, Load(x + i, lanes)); });
  return SumOfLanes(total) / static_cast<float>(n);
}

template <typename T, typename Args>
void NormRow(const Args& args, int64_t row) {
  const int64_t n = args.x.cols;
  const T* x = SumRow<T>(args, row);
  const Floats d;
  auto center = hn::Zero(d);
  if constexpr (Args::kCenters) {
    const float mean = MeanOf(x, n);
    args.mean.template As<float>()[row] = mean;
    center = hn::Set(d, mean);
  }
  auto squares = hn::Zero(d);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto v = LoadForNorm<Args>(x + i, center, lanes);
    squares = hn::MulAdd(v, v, squares);
  });
  const float mean_square = SumOfLanes(squares) / static_cast<float>(n);
  const float rstd = 1.0f / std::sqrt(mean_square + args.epsilon);
  args.rstd.template As<float>()[row] = rstd;
  const float* weight = args.weight.template As<const float>();
  T* y = args.y.template Row<T>(row);
  const auto factor = hn::Set(d, rstd);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto v = LoadForNorm<Args>(x + i, center, lanes);
    auto scaled = hn::Mul(hn::Mul(v, factor), Load(weight + i, lanes));
    if constexpr (Args::kCenters) {
      const float* bias = args.bias.template As<const float>();
      scaled = hn::Add(scaled, Load(bias + i, lanes));
    }
    Store(scaled, y + i, lanes);
  });
}

template <typename Args>
void NormRows(const Args& args, Range rows) {
  DispatchFloat(args.x.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      NormRow<decltype(t)>(args, row);
    }
  });
}

// With g = w dy: dx = rstd g - x rstd^3 mean(g x). Where the norm centers, x is
// the difference from its mean, and g in the first term that from mean(g).
template <typename T, typename TDy, typename Args>
void NormBackwardRow(const Args& args, int64_t row) {
  const int64_t n = args.x.cols;
  const T* x = args.x.template Row<const T>(row);
  const TDy* dy = args.dy.template Row<const TDy>(row);
  const float* weight = args.weight.template As<const float>();
  const float rstd = args.rstd.template As<const float>()[row];
  const Floats d;
  auto center = hn::Zero(d);
  if constexpr (Args::kCenters) {
    center = hn::Set(d, args.mean.template As<const float>()[row]);
  }
  auto dot = hn::Zero(d);
  auto total = hn::Zero(d);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(Load(dy + i, lanes), Load(weight + i, lanes));
    dot = hn::MulAdd(g, LoadForNorm<Args>(x + i, center, lanes), dot);
    if constexpr (Args::kCenters) total = hn::Add(total, g);
  });
  const float mean = SumOfLanes(dot) / static_cast<float>(n);
  const auto along = hn::Set(d, rstd);
  const auto back = hn::Set(d, mean * rstd * rstd * rstd);
  const auto mean_g = hn::Set(d, SumOfLanes(total) / static_cast<float>(n));
  T* dx = args.dx.template Row<T>(row);
  const bool add = args.update == Update::kAdd;
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    auto g = hn::Mul(Load(dy + i, lanes), Load(weight + i, lanes));
    if constexpr (Args::kCenters) g = hn::Sub(g, mean_g);
    auto v = hn::NegMulAdd(LoadForNorm<Args>(x + i, center, lanes), back,
                           hn::Mul(g, along));
    if (add) v = hn::Add(v, Load(dx + i, lanes));
    Store(v, dx + i, lanes);
  });
}

template <typename Args>
void NormBackwardRows(const Args& args, Range rows) {
  DispatchFloat(args.x.dtype, [&](auto t) HWY_ATTR {
    DispatchFloat(args.dy.dtype, [&](auto t_dy) HWY_ATTR {
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        NormBackwardRow<decltype(t), decltype(t_dy)>(args, row);
      }
    });
  });
}

void RmsNormRows(const RmsNormArgs& args, Range rows) { NormRows(args, rows); }
void RmsNormBackwardRows(const RmsNormBackwardArgs& args, Range rows) {
  NormBackwardRows(args, rows);
}
void LayerNormRows(const LayerNormArgs& args, Range rows) {
  NormRows(args, rows);
}
void LayerNormBackwardRows(const LayerNormBackwardArgs& args, Range rows) {
  NormBackwardRows(args, rows);
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(RmsNormRows);
HWY_EXPORT(RmsNormBackwardRows);
HWY_EXPORT(LayerNormRows);
HWY_EXPORT(LayerNormBackwardRows);

void RmsNorm(Queue* queue, const RmsNormArgs& args) {
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(RmsNormRows)(args, rows);
  });
}

void RmsNormBackward(Queue* queue, const RmsNormBackwardArgs& args) {
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(RmsNormBackwardRows)(args, rows);
  });
}

void LayerNorm(Queue* queue, const LayerNormArgs& args) {
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(LayerNormRows)(args, rows);
  });
}

void LayerNormBackward(Queue* queue, const LayerNormBackwardArgs& args) {
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(LayerNormBackwardRows)(args, rows);
  });
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
