#include <algorithm>
#include <cmath>
#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/random.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/dropout.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

using Longs = hn::ScalableTag<uint64_t>;
constexpr int64_t kWordsPerBlock = 4;
constexpr int64_t kBlocksAtOnce = hn::MaxLanes(Longs());
constexpr int64_t kWordsAtOnce = kWordsPerBlock * kBlocksAtOnce;

// The words of as many blocks of the field as `d` has lanes, from block `first`
// on, as RandomField::Word gives them. A block is a lane of 64 bits, of which
// only the lower half counts until the end.
template <typename D>
void PhiloxBlocks(D d, const RandomField& field, uint64_t first,
                  uint32_t* words) {
  const hn::Repartition<uint32_t, D> halves;
  const auto multiply = [&](auto x, uint64_t by) HWY_ATTR {
    return hn::MulEven(hn::BitCast(halves, x),
                       hn::BitCast(halves, hn::Set(d, by)));
  };
  auto k0 = static_cast<uint32_t>(field.seed);
  auto k1 = static_cast<uint32_t>(field.seed >> 32);
  auto c0 = hn::Iota(d, first);
  auto c1 = hn::ShiftRight<32>(c0);
  auto c2 = hn::Set(d, field.stream & 0xffffffffu);
  auto c3 = hn::Set(d, field.stream >> 32);
  for (int round = 0; round < 10; ++round) {
    const auto p0 = multiply(c0, 0xD2511F53u);
    const auto p1 = multiply(c2, 0xCD9E8D57u);
    const auto key0 = hn::Set(d, uint64_t{k0});
    const auto key1 = hn::Set(d, uint64_t{k1});
    c0 = hn::Xor(hn::ShiftRight<32>(p1), hn::Xor(c1, key0));
    c2 = hn::Xor(hn::ShiftRight<32>(p0), hn::Xor(c3, key1));
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const auto low = hn::Set(d, uint64_t{0xffffffffu});
  const auto even = hn::Or(hn::And(c0, low), hn::ShiftLeft<32>(c1));
  const auto odd = hn::Or(hn::And(c2, low), hn::ShiftLeft<32>(c3));
  hn::StoreInterleaved2(even, odd, d, reinterpret_cast<uint64_t*>(words));
}

// The same without vectors.
HWY_MAYBE_UNUSED void PhiloxBlocks(hn::CappedTag<uint64_t, 1>,
                                   const RandomField& field, uint64_t first,
                                   uint32_t* words) {
  const PhiloxBlock block = Philox(field.seed, field.stream, first);
  std::copy_n(block.words, kWordsPerBlock, words);
}

// y = or += x * scale where the element's word is at least `threshold`.
template <typename T>
void ApplyWords(const T* x, const uint32_t* words, int64_t n,
                uint32_t threshold, float scale, Update update, T* y) {
  const Floats d;
  const auto least = hn::Set(Words(), threshold);
  const auto factor = hn::Set(d, scale);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    const auto word = hn::LoadU(Words(), words + i);
    const auto keep = hn::RebindMask(d, hn::Not(hn::Lt(word, least)));
    auto v = hn::Mul(Load(x + i, lanes), factor);
    v = hn::IfThenElseZero(keep, v);
    if (update == Update::kAdd) v = hn::Add(v, Load(y + i, lanes));
    Store(v, y + i, lanes);
  });
}

template <typename T>
void DropoutRow(const DropoutArgs& args, int64_t row) {
  // An element is dropped if its word is below p 2^32, which need not be an
  // integer. p is less than one, so 32 bits hold the next one.
  const auto threshold =
      static_cast<uint32_t>(std::ceil(double{args.p} * 0x1p32));
  const float scale = 1.0f / (1.0f - args.p);
  const auto first = static_cast<uint64_t>(
      args.row_index.As<const int64_t>()[row] * args.row_elements +
      args.first_col);
  uint64_t block = first / kWordsPerBlock;
  auto skip = static_cast<int64_t>(first % kWordsPerBlock);
  // The last vector of words may be loaded from past the row's end.
  HWY_ALIGN uint32_t words[kWordsAtOnce + hn::MaxLanes(Words())] = {};
  for (int64_t col = 0; col < args.x.cols;) {
    PhiloxBlocks(Longs(), args.field, block, words);
    const int64_t n = std::min(kWordsAtOnce - skip, args.x.cols - col);
    ApplyWords(args.x.Row<const T>(row) + col, words + skip, n, threshold,
               scale, args.update, args.y.Row<T>(row) + col);
    col += n;
    block += kBlocksAtOnce;
    skip = 0;
  }
}

void DropoutRows(const DropoutArgs& args, Range rows) {
  DispatchFloat(args.x.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      DropoutRow<decltype(t)>(args, row);
    }
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(DropoutRows);

void Dropout(Queue* queue, const DropoutArgs& args) {
  ParallelRows(*queue, args.x.rows, args.x.cols, [&](Range rows) {
    HWY_DYNAMIC_DISPATCH(DropoutRows)(args, rows);
  });
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
