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

// The rounded sum is what gets normalized, as it is what backward will see.
template <typename T>
void RmsNormRow(const RmsNormArgs& args, int64_t row) {
  const int64_t n = args.x.cols;
  const T* x = args.x.Row<const T>(row);
  if (args.delta.present()) {
    const T* delta = args.delta.Row<const T>(row);
    T* sum = args.sum.Row<T>(row);
    ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
      Store(hn::Add(Load(x + i, lanes), Load(delta + i, lanes)), sum + i,
            lanes);
    });
    x = sum;
  }
  const Floats d;
  auto squares = hn::Zero(d);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto v = Load(x + i, lanes);
    squares = hn::MulAdd(v, v, squares);
  });
  const float mean = SumOfLanes(squares) / static_cast<float>(n);
  const float rstd = 1.0f / std::sqrt(mean + args.epsilon);
  args.rstd.As<float>()[row] = rstd;
  const float* weight = args.weight.As<const float>();
  T* y = args.y.Row<T>(row);
  const auto factor = hn::Set(d, rstd);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto normalized = hn::Mul(Load(x + i, lanes), factor);
    Store(hn::Mul(normalized, Load(weight + i, lanes)), y + i, lanes);
  });
}

void RmsNormRows(const RmsNormArgs& args, Range rows) {
  DispatchFloat(args.x.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      RmsNormRow<decltype(t)>(args, row);
    }
  });
}

// dx = rstd w dy - x rstd^3 mean(w dy x).
template <typename T, typename TDy>
void RmsNormBackwardRow(const RmsNormBackwardArgs& args, int64_t row) {
  const int64_t n = args.x.cols;
  const T* x = args.x.Row<const T>(row);
  const TDy* dy = args.dy.Row<const TDy>(row);
  const float* weight = args.weight.As<const float>();
  const float rstd = args.rstd.As<const float>()[row];
  const Floats d;
  auto dot = hn::Zero(d);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(Load(dy + i, lanes), Load(weight + i, lanes));
    dot = hn::MulAdd(g, Load(x + i, lanes), dot);
  });
  const float mean = SumOfLanes(dot) / static_cast<float>(n);
  const auto along = hn::Set(d, rstd);
  const auto back = hn::Set(d, mean * rstd * rstd * rstd);
  T* dx = args.dx.Row<T>(row);
  const bool add = args.update == Update::kAdd;
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(Load(dy + i, lanes), Load(weight + i, lanes));
    auto v = hn::NegMulAdd(Load(x + i, lanes), back, hn::Mul(g, along));
    if (add) v = hn::Add(v, Load(dx + i, lanes));
    Store(v, dx + i, lanes);
  });
}

void RmsNormBackwardRows(const RmsNormBackwardArgs& args, Range rows) {
  DispatchFloat(args.x.dtype, [&](auto t) HWY_ATTR {
    DispatchFloat(args.dy.dtype, [&](auto t_dy) HWY_ATTR {
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        RmsNormBackwardRow<decltype(t), decltype(t_dy)>(args, row);
      }
    });
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(RmsNormRows);
HWY_EXPORT(RmsNormBackwardRows);

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

}  // namespace lorica::cpu
#endif  // HWY_ONCE
