#include <cmath>
#include <cstdint>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/adamw.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// The bias corrections are taken in double, as 1 - beta^step cancels.
void AdamWSpan(const AdamWArgs& args, Range range) {
  const auto step = static_cast<double>(args.step);
  const double correction1 = 1.0 - std::pow(double{args.beta1}, step);
  const double correction2 = 1.0 - std::pow(double{args.beta2}, step);
  const Floats d;
  const auto decay = hn::Set(d, 1.0f - args.learning_rate * args.weight_decay);
  const auto rate =
      hn::Set(d, static_cast<float>(args.learning_rate / correction1));
  const auto root2 =
      hn::Set(d, static_cast<float>(1.0 / std::sqrt(correction2)));
  const auto epsilon = hn::Set(d, args.epsilon);
  const auto grad_scale = hn::Set(d, args.grad_scale);
  const auto beta2 = hn::Set(d, args.beta2);
  const auto rest1 = hn::Set(d, 1.0f - args.beta1);
  const auto rest2 = hn::Set(d, 1.0f - args.beta2);
  float* value = args.value.As<float>() + range.begin;
  const float* grad = args.grad.As<const float>() + range.begin;
  float* m = args.m.As<float>() + range.begin;
  float* v = args.v.As<float>() + range.begin;
  ForVectors(range.size(), [&](auto lanes, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(Load(grad + i, lanes), grad_scale);
    const auto m0 = Load(m + i, lanes);
    const auto m1 = hn::MulAdd(hn::Sub(g, m0), rest1, m0);
    const auto v1 =
        hn::MulAdd(hn::Mul(g, g), rest2, hn::Mul(Load(v + i, lanes), beta2));
    const auto below = hn::MulAdd(hn::Sqrt(v1), root2, epsilon);
    const auto decayed = hn::Mul(Load(value + i, lanes), decay);
    Store(m1, m + i, lanes);
    Store(v1, v + i, lanes);
    Store(hn::NegMulAdd(rate, hn::Div(m1, below), decayed), value + i, lanes);
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(AdamWSpan);

void AdamW(Queue* queue, const AdamWArgs& args) {
  const int64_t n = args.value.elements();
  ParallelRanges(*queue, n, 16, n, [&](Range range) {
    HWY_DYNAMIC_DISPATCH(AdamWSpan)(args, range);
  });
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
