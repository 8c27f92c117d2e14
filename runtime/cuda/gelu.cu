#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"

// As (1 + tanh(z / 2)) / 2 is the logistic function of z, y = x s(z) with
// z = 2 sqrt(2 / pi) (x + 0.044715 x^3), without the difference of nearly equal
// numbers that the tanh form has where x is far below zero.

namespace lorica::cuda {
namespace {

constexpr float kLinear = 1.5957691216057308f;  // 2 sqrt(2 / pi)
constexpr float kCubic = 0.044715f * kLinear;

// s(z) and its derivative, each to a few units in the last place of its own.
struct Logistic {
  float value;
  float slope;
};

__device__ __forceinline__ Logistic LogisticOf(float z) {
  const float e = expf(-fabsf(z));
  const float larger = __fdividef(1.0f, 1.0f + e);  // s(|z|)
  const float smaller = e * larger;
  return {z < 0.0f ? smaller : larger, smaller * larger};
}

template <typename T>
struct GeluOp {
  GeluArgs args;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    Pack<kN> pack = Load<kN>(args.x.Row<const T>(row) + col);
    for (float& v : pack.v) {
      v *= LogisticOf(v * (kLinear + kCubic * v * v)).value;
    }
    Store(pack, args.y.Row<T>(row) + col);
  }
};

// y' = s(z) + x s'(z) z'.
template <typename T>
struct GeluBackwardOp {
  GeluBackwardArgs args;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    const Pack<kN> x = Load<kN>(args.x.Row<const T>(row) + col);
    Pack<kN> d = Load<kN>(args.dy.Row<const T>(row) + col);
    for (int i = 0; i < kN; ++i) {
      const float v = x.v[i];
      const float cubic_part = kCubic * v * v;
      const Logistic s = LogisticOf(v * (kLinear + cubic_part));
      d.v[i] *= s.value + v * s.slope * (kLinear + 3.0f * cubic_part);
    }
    Store(d, args.dx.Row<T>(row) + col);
  }
};

}  // namespace

void Gelu(Queue* queue, const GeluArgs& args) {
  ForElements<GeluOp>(queue, {args.y, args.x}, args);
}

void GeluBackward(Queue* queue, const GeluBackwardArgs& args) {
  ForElements<GeluBackwardOp>(queue, {args.dy, args.x, args.dx}, args);
}

}  // namespace lorica::cuda
