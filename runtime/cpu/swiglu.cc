#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/swiglu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

template <typename T>
void SwigluRow(const SwigluArgs& args, int64_t row) {
  const T* gate = args.gate.Row<const T>(row);
  const T* up = args.up.Row<const T>(row);
  T* y = args.y.Row<T>(row);
  ForVectors(args.y.cols, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto g = Load(gate + i, lanes);
    const auto silu = hn::Mul(g, Sigmoid(g));
    Store(hn::Mul(silu, Load(up + i, lanes)), y + i, lanes);
  });
}

void SwigluRows(const SwigluArgs& args, Range rows) {
  DispatchFloat(args.y.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      SwigluRow<decltype(t)>(args, row);
    }
  });
}

// With s = sigmoid(gate): silu = gate s, silu' = s + silu (1 - s).
template <typename T>
void SwigluBackwardRow(const SwigluBackwardArgs& args, int64_t row) {
  const T* dy = args.dy.Row<const T>(row);
  const T* gate = args.gate.Row<const T>(row);
  const T* up = args.up.Row<const T>(row);
  T* dgate = args.dgate.Row<T>(row);
  T* dup = args.dup.Row<T>(row);
  const auto one = hn::Set(Floats(), 1.0f);
  ForVectors(args.dy.cols, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto g = Load(gate + i, lanes);
    const auto u = Load(up + i, lanes);
    const auto dv = Load(dy + i, lanes);
    const auto s = Sigmoid(g);
    const auto silu = hn::Mul(g, s);
    const auto slope = hn::MulAdd(silu, hn::Sub(one, s), s);
    Store(hn::Mul(hn::Mul(dv, u), slope), dgate + i, lanes);
    Store(hn::Mul(dv, silu), dup + i, lanes);
  });
}

void SwigluBackwardRows(const SwigluBackwardArgs& args, Range rows) {
  DispatchFloat(args.dy.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      SwigluBackwardRow<decltype(t)>(args, row);
    }
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(SwigluRows);
HWY_EXPORT(SwigluBackwardRows);

void Swiglu(Queue* queue, const SwigluArgs& args) {
  ParallelRows(*queue, args.y.rows, args.y.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(SwigluRows)(args, rows);
  });
}

void SwigluBackward(Queue* queue, const SwigluBackwardArgs& args) {
  ParallelRows(*queue, args.dy.rows, args.dy.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(SwigluBackwardRows)(args, rows);
  });
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
