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

void AdamWSpan(const AdamWArgs& args, Range range) {
  const auto& numbers = *args.numbers.As<const AdamWNumbers>();
  const Floats d;
  const auto value_scale = hn::Set(d, numbers.value_scale);
  const auto rate = hn::Set(d, numbers.rate);
  const auto root = hn::Set(d, numbers.root);
  const auto epsilon = hn::Set(d, numbers.epsilon);
  const auto grad_scale = hn::Set(d, numbers.grad_scale);
  const auto beta2 = hn::Set(d, numbers.beta2);
  const auto rest1 = hn::Set(d, 1.0f - numbers.beta1);
  const auto rest2 = hn::Set(d, 1.0f - numbers.beta2);
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
    const auto below = hn::MulAdd(hn::Sqrt(v1), root, epsilon);
    const auto decayed = hn::Mul(Load(value + i, lanes), value_scale);
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
