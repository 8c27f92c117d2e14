#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"

namespace lorica::cuda {
namespace {

// Its columns are pairs: element j of a head's first half and of its second.
template <typename T>
struct RopeOp {
  RopeArgs args;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t pair) const {
    const auto half = static_cast<int32_t>(args.head_dim / 2);
    const auto head = static_cast<int32_t>(pair) / half;
    const auto j = static_cast<int32_t>(pair) % half;
    const int64_t position = args.positions.As<const int32_t>()[row];
    T* x = args.x.Row<T>(row) + head * args.head_dim + j;
    Pack<kN> a = Load<kN>(x);
    Pack<kN> b = Load<kN>(x + half);
    const Pack<kN> cos = Load<kN>(args.cos.Row<const float>(position) + j);
    const Pack<kN> sin = Load<kN>(args.sin.Row<const float>(position) + j);
    const float sign = args.direction == Direction::kForward ? 1.0f : -1.0f;
    for (int i = 0; i < kN; ++i) {
      const float s = sign * sin.v[i];
      const float turned = a.v[i] * cos.v[i] - b.v[i] * s;
      b.v[i] = a.v[i] * s + b.v[i] * cos.v[i];
      a.v[i] = turned;
    }
    Store(a, x);
    Store(b, x + half);
  }
};

}  // namespace

void Rope(Queue* queue, const RopeArgs& args) {
  DispatchFloat(args.x.dtype, [&]<typename T>() {
    const auto rotate = [&]<int kN>() {
      ForPacks<kN>(queue, args.x.rows, args.x.cols / 2, RopeOp<T>{args});
    };
    // Halves of heads are rows of the tables.
    if (IsPacked(args.x) && IsPacked(args.cos) && IsPacked(args.sin)) {
      rotate.template operator()<kWidePack>();
    } else {
      rotate.template operator()<1>();
    }
  });
}

}  // namespace lorica::cuda
