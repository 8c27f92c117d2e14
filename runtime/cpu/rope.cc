#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/rope.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

template <typename T>
void RopeRow(const RopeArgs& args, int64_t row) {
  const int64_t half = args.head_dim / 2;
  const int64_t position = args.positions.As<const int32_t>()[row];
  const float* cos = args.cos.Row<const float>(position);
  const float* sin = args.sin.Row<const float>(position);
  const float sign = args.direction == Direction::kForward ? 1.0f : -1.0f;
  const auto turn = hn::Set(Floats(), sign);
  T* end = args.x.Row<T>(row) + args.x.cols;
  for (T* x = args.x.Row<T>(row); x < end; x += args.head_dim) {
    ForVectors(half, [&](auto lanes, int64_t i) HWY_ATTR {
      const auto a = Load(x + i, lanes);
      const auto b = Load(x + half + i, lanes);
      const auto c = Load(cos + i, lanes);
      const auto s = hn::Mul(turn, Load(sin + i, lanes));
      Store(hn::NegMulAdd(b, s, hn::Mul(a, c)), x + i, lanes);
      Store(hn::MulAdd(a, s, hn::Mul(b, c)), x + half + i, lanes);
    });
  }
}

void RopeRows(const RopeArgs& args, Range rows) {
  DispatchFloat(args.x.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      RopeRow<decltype(t)>(args, row);
    }
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(RopeRows);

void Rope(Queue* queue, const RopeArgs& args) {
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(RopeRows)(args, rows);
  });
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
