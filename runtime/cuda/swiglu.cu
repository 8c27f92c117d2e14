#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"

namespace lorica::cuda {
namespace {

// Zero where exp(-x) is too large for the quotient, off by 2 units in the last
// place elsewhere.
__device__ __forceinline__ float Sigmoid(float x) {
  return __fdividef(1.0f, 1.0f + expf(-x));
}

template <typename T>
struct SwigluOp {
  SwigluArgs args;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    const Pack<kN> gate = Load<kN>(args.gate.Row<const T>(row) + col);
    Pack<kN> y = Load<kN>(args.up.Row<const T>(row) + col);
    for (int i = 0; i < kN; ++i) {
      y.v[i] *= gate.v[i] * Sigmoid(gate.v[i]);
    }
    Store(y, args.y.Row<T>(row) + col);
  }
};

// With s = sigmoid(gate): silu = gate s, silu' = s + silu (1 - s).
template <typename T>
struct SwigluBackwardOp {
  SwigluBackwardArgs args;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    const Pack<kN> dy = Load<kN>(args.dy.Row<const T>(row) + col);
    Pack<kN> gate = Load<kN>(args.gate.Row<const T>(row) + col);
    Pack<kN> up = Load<kN>(args.up.Row<const T>(row) + col);
    for (int i = 0; i < kN; ++i) {
      const float s = Sigmoid(gate.v[i]);
      const float silu = gate.v[i] * s;
      gate.v[i] = dy.v[i] * up.v[i] * (s + silu * (1.0f - s));
      up.v[i] = dy.v[i] * silu;
    }
    Store(gate, args.dgate.Row<T>(row) + col);
    Store(up, args.dup.Row<T>(row) + col);
  }
};

}  // namespace

void Swiglu(Queue* queue, const SwigluArgs& args) {
  ForElements<SwigluOp>(queue, {args.y, args.gate, args.up}, args);
}

void SwigluBackward(Queue* queue, const SwigluBackwardArgs& args) {
  ForElements<SwigluBackwardOp>(
      queue, {args.dy, args.gate, args.up, args.dgate, args.dup}, args);
}

}  // namespace lorica::cuda
