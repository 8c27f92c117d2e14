#include <algorithm>
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
  const AdamWNumbers* numbers;

  template <int kN>
  __device__ void Apply(int64_t, int64_t i) const {
    const AdamWNumbers n = *numbers;
    const Pack<kN> g = Load<kN>(grad + i);
    Pack<kN> m1 = Load<kN>(m + i);
    Pack<kN> v1 = Load<kN>(v + i);
    Pack<kN> next = Load<kN>(value + i);
    for (int j = 0; j < kN; ++j) {
      const float scaled = g.v[j] * n.grad_scale;
      m1.v[j] += (scaled - m1.v[j]) * (1.0f - n.beta1);
      v1.v[j] = scaled * scaled * (1.0f - n.beta2) + v1.v[j] * n.beta2;
      const float below = sqrtf(v1.v[j]) * n.root + n.epsilon;
      next.v[j] = next.v[j] * n.value_scale - n.rate * (m1.v[j] / below);
    }
    Store(m1, m + i);
    Store(v1, v + i);
    Store(next, value + i);
  }
};

}  // namespace

void AdamW(Queue* queue, const AdamWArgs& args) {
  const AdamWOp op = {.value = args.value.As<float>(),
                      .grad = args.grad.As<const float>(),
                      .m = args.m.As<float>(),
                      .v = args.v.As<float>(),
                      .numbers = args.numbers.As<const AdamWNumbers>()};
  DispatchPack({AsOneRow(args.value), AsOneRow(args.grad), AsOneRow(args.m),
                AsOneRow(args.v)},
               [&]<int kN>() {
                 // Of F32 that is 16 bytes as well, and takes fewer registers.
                 constexpr int kPack = std::min(kN, kShortPack);
                 ForPacks<kPack>(queue, 1, args.value.elements(), op);
               });
}

}  // namespace lorica::cuda
