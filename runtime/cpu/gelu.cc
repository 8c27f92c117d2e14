#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/gelu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

// As (1 + tanh(z / 2)) / 2 is the logistic function of z, y = x s(z) with
// z = 2 sqrt(2 / pi) (x + 0.044715 x^3), without the difference of nearly equal
// numbers that the tanh form has where x is far below zero.

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

constexpr float kLinear = 1.5957691216057308f;  // 2 sqrt(2 / pi)
constexpr float kCubic = 0.044715f * kLinear;

// s(z) and its derivative, each to a few units in the last place of its own.
struct Logistic {
  FloatVec value;
  FloatVec slope;
};

HWY_INLINE Logistic LogisticOf(FloatVec z) {
  const auto one = hn::Set(Floats(), 1.0f);
  const auto e = Exp(hn::Neg(hn::Abs(z)));
  const auto larger = hn::Div(one, hn::Add(one, e));  // s(|z|)
  const auto smaller = hn::Mul(e, larger);
  const auto is_negative = hn::Lt(z, hn::Zero(Floats()));
  return {hn::IfThenElse(is_negative, smaller, larger),
          hn::Mul(smaller, larger)};
}

template <typename T>
void GeluRow(const GeluArgs& args, int64_t row) {
  const T* x = args.x.Row<const T>(row);
  T* y = args.y.Row<T>(row);
  const auto linear = hn::Set(Floats(), kLinear);
  const auto cubic = hn::Set(Floats(), kCubic);
  ForVectors(args.y.cols, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto v = Load(x + i, lanes);
    const auto z = hn::Mul(v, hn::MulAdd(hn::Mul(v, v), cubic, linear));
    Store(hn::Mul(v, LogisticOf(z).value), y + i, lanes);
  });
}

void GeluRows(const GeluArgs& args, Range rows) {
  DispatchFloat(args.y.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      GeluRow<decltype(t)>(args, row);
    }
  });
}

// y' = s(z) + x s'(z) z'.
template <typename T>
void GeluBackwardRow(const GeluBackwardArgs& args, int64_t row) {
  const T* dy = args.dy.Row<const T>(row);
  const T* x = args.x.Row<const T>(row);
  T* dx = args.dx.Row<T>(row);
  const auto linear = hn::Set(Floats(), kLinear);
  const auto cubic = hn::Set(Floats(), kCubic);
  const auto three = hn::Set(Floats(), 3.0f);
  ForVectors(args.dy.cols, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto v = Load(x + i, lanes);
    const auto cubic_part = hn::Mul(hn::Mul(v, v), cubic);
    const auto s = LogisticOf(hn::Mul(v, hn::Add(cubic_part, linear)));
    const auto z_slope = hn::MulAdd(cubic_part, three, linear);
    const auto slope = hn::MulAdd(hn::Mul(v, s.slope), z_slope, s.value);
    Store(hn::Mul(Load(dy + i, lanes), slope), dx + i, lanes);
  });
}

void GeluBackwardRows(const GeluBackwardArgs& args, Range rows) {
  DispatchFloat(args.dy.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      GeluBackwardRow<decltype(t)>(args, row);
    }
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(GeluRows);
HWY_EXPORT(GeluBackwardRows);

void Gelu(Queue* queue, const GeluArgs& args) {
  ParallelRows(*queue, args.y.rows, args.y.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(GeluRows)(args, rows);
  });
}

void GeluBackward(Queue* queue, const GeluBackwardArgs& args) {
  ParallelRows(*queue, args.dy.rows, args.dy.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(GeluBackwardRows)(args, rows);
  });
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
