#include <cmath>
#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"

namespace lorica::cuda {
namespace {

struct AdamWOp {
  float* value;
  const float* grad;
  float* m;
  float* v;
  float grad_scale;
  float beta2;
  float rest1;  // 1 - beta1
  float rest2;  // 1 - beta2
  float rate;   // Learning rate over the first moment's bias correction.
  float root2;  // One over the root of the second's.
  float epsilon;
  float decay;

  template <int kN>
  __device__ void Apply(int64_t, int64_t i) const {
    const Pack<kN> g = Load<kN>(grad + i);
    Pack<kN> m1 = Load<kN>(m + i);
    Pack<kN> v1 = Load<kN>(v + i);
    Pack<kN> next = Load<kN>(value + i);
    for (int j = 0; j < kN; ++j) {
      const float scaled = g.v[j] * grad_scale;
      m1.v[j] += (scaled - m1.v[j]) * rest1;
      v1.v[j] = scaled * scaled * rest2 + v1.v[j] * beta2;
      const float below = sqrtf(v1.v[j]) * root2 + epsilon;
      next.v[j] = next.v[j] * decay - rate * (m1.v[j] / below);
    }
    Store(m1, m + i);
    Store(v1, v + i);
    Store(next, value + i);
  }
};

}  // namespace

// The bias corrections are taken in double, as 1 - beta^step cancels.
void AdamW(Queue* queue, const AdamWArgs& args) {
  const auto step = static_cast<double>(args.step);
  const double correction1 = 1.0 - std::pow(double{args.beta1}, step);
  const double correction2 = 1.0 - std::pow(double{args.beta2}, step);
  const AdamWOp op = {
      .value = args.value.As<float>(),
      .grad = args.grad.As<const float>(),
      .m = args.m.As<float>(),
      .v = args.v.As<float>(),
      .grad_scale = args.grad_scale,
      .beta2 = args.beta2,
      .rest1 = 1.0f - args.beta1,
      .rest2 = 1.0f - args.beta2,
      .rate = static_cast<float>(args.learning_rate / correction1),
      .root2 = static_cast<float>(1.0 / std::sqrt(correction2)),
      .epsilon = args.epsilon,
      .decay = 1.0f - args.learning_rate * args.weight_decay};
  DispatchPack(
      {AsOneRow(args.value), AsOneRow(args.grad), AsOneRow(args.m),
       AsOneRow(args.v)},
      [&]<int kN>() { ForPacks<kN>(queue, 1, args.value.elements(), op); });
}

}  // namespace lorica::cuda
