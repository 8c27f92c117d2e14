// Vectors of floats in memory as F32 or BF16, for files that Highway compiles
// once per instruction set. Arithmetic is F32 throughout.
#if defined(LORICA_RUNTIME_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LORICA_RUNTIME_CPU_SIMD_INL_H_
#undef LORICA_RUNTIME_CPU_SIMD_INL_H_
#else
#define LORICA_RUNTIME_CPU_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "runtime/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using FloatVec = hn::Vec<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using Halves = hn::Rebind<uint16_t, Floats>;

// A whole vector, or the first `count` of its elements.
struct Whole {};
struct First {
  size_t count;
};

HWY_INLINE FloatVec Load(const float* p, Whole) {
  return hn::LoadU(Floats(), p);
}

HWY_INLINE FloatVec Load(const BFloat16* p, Whole) {
  const auto halves = hn::LoadU(Halves(), reinterpret_cast<const uint16_t*>(p));
  const auto words = hn::PromoteTo(Words(), halves);
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(words));
}

HWY_INLINE void Store(FloatVec v, float* p, Whole) {
  hn::StoreU(v, Floats(), p);
}

// Rounds as BFloat16 does: to nearest, ties to even, NaN to NaN.
HWY_INLINE void Store(FloatVec v, BFloat16* p, Whole) {
  const Words words;
  const auto bits = hn::BitCast(words, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(words, 0x7fffu)));
  const auto quiet = hn::Or(bits, hn::Set(words, 0x400000u));
  const auto is_nan = hn::RebindMask(words, hn::IsNaN(v));
  const auto upper = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
  const hn::RebindToSigned<Floats> ints;
  const auto halves = hn::DemoteTo(Halves(), hn::BitCast(ints, upper));
  hn::StoreU(halves, Halves(), reinterpret_cast<uint16_t*>(p));
}

// The ends of rows go through a buffer, which keeps loads and stores in bounds
// on every instruction set. Elements beyond the count read as zero.
template <typename T>
HWY_INLINE FloatVec Load(const T* p, First first) {
  HWY_ALIGN T buffer[hn::MaxLanes(Floats())] = {};
  std::memcpy(buffer, p, first.count * sizeof(T));
  return Load(buffer, Whole());
}

template <typename T>
HWY_INLINE void Store(FloatVec v, T* p, First first) {
  HWY_ALIGN T buffer[hn::MaxLanes(Floats())];
  Store(v, buffer, Whole());
  std::memcpy(p, buffer, first.count * sizeof(T));
}

// Calls body(lanes, i) for the vectors that start at element i of n, the last
// perhaps a First.
template <typename Body>
HWY_INLINE void ForVectors(int64_t n, const Body& body) {
  const int64_t step = static_cast<int64_t>(hn::Lanes(Floats()));
  int64_t i = 0;
  for (; i + step <= n; i += step) body(Whole(), i);
  if (i < n) body(First{static_cast<size_t>(n - i)}, i);
}

HWY_INLINE float SumOfLanes(FloatVec v) {
  return hn::GetLane(hn::SumOfLanes(Floats(), v));
}

// Adding 1.5 * 2^23 leaves no bit below one: the sum's lowest bits are the
// rounded addend as an integer.
constexpr float kRoundingShift = 0x1.8p23f;

// p 2^n for a p near one, where `shifted` is n plus kRoundingShift.
HWY_INLINE FloatVec TimesPowerOfTwo(FloatVec p, FloatVec shifted) {
  const Words words;
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(words, shifted));
  return hn::BitCast(Floats(), hn::Add(hn::BitCast(words, p), exponent));
}

// Where e^x is still a normal number.
constexpr float kLowestExponent = -87.3f;

// e^x within two units in the last place, for x from kLowestExponent to 88.
HWY_INLINE FloatVec ExpOfBounded(FloatVec x) {
  const Floats d;
  const auto shift = hn::Set(d, kRoundingShift);
  const auto shifted = hn::MulAdd(x, hn::Set(d, 1.44269504088896341f), shift);
  const auto n = hn::Sub(shifted, shift);
  // ln 2 in two pieces, the first with few enough bits for an exact product.
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  auto p = hn::Set(d, 1.0f / 5040.0f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 720.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 120.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 24.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 6.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  return TimesPowerOfTwo(p, shifted);
}

// Zero below kLowestExponent. The argument must be at most 88.
HWY_INLINE FloatVec Exp(FloatVec x) {
  const auto lowest = hn::Set(Floats(), kLowestExponent);
  return hn::IfThenZeroElse(hn::Lt(x, lowest),
                            ExpOfBounded(hn::Max(x, lowest)));
}

// 1 / (1 + e^-x).
HWY_INLINE FloatVec Sigmoid(FloatVec x) {
  const Floats d;
  const auto one = hn::Set(d, 1.0f);
  const auto bounded =
      hn::Max(hn::Min(hn::Neg(x), hn::Set(d, -kLowestExponent)),
              hn::Set(d, kLowestExponent));
  return hn::Div(one, hn::Add(one, ExpOfBounded(bounded)));
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LORICA_RUNTIME_CPU_SIMD_INL_H_
