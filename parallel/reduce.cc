#include "parallel/reduce.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "parallel/tree_sum.h"
#include "runtime/dtype.h"

namespace lorica {
namespace {

// Terms are combined tile by tile, so that the partial results of the tree stay
// in the first-level cache whatever the number of ranks.
constexpr int64_t kTile = 1024;

template <typename T>
struct Accumulator {
  using Type = T;
};
template <>
struct Accumulator<BFloat16> {
  using Type = float;
};

struct Add {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

struct Max {
  template <typename T>
  T operator()(T a, T b) const {
    return (a < b || b != b) ? b : a;
  }
};

template <typename T>
void Store(const T* tile, int64_t count, T* y) {
  std::copy_n(tile, count, y);
}

// BFloat16's own conversion, in the form that g++ turns into vectors.
void Store(const float* tile, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t word = std::bit_cast<uint32_t>(tile[i]);
    const uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
    const uint32_t quiet = word | 0x400000u;
    // Both are positive, and SSE2 compares signed numbers only.
    const bool is_nan = static_cast<int32_t>(word & 0x7fffffffu) > 0x7f800000;
    y[i].bits = static_cast<uint16_t>((is_nan ? quiet : rounded) >> 16);
  }
}

// Combines elements [begin, begin + count) of all terms into `tile`; `spare`
// holds a tile a level of the tree.
template <typename T, typename Op, typename A>
void CombineTile(absl::Span<const void* const> terms, int64_t begin,
                 int64_t count, A* tile, A* spare) {
  const auto at = [&](size_t term) {
    return static_cast<const T*>(terms[term]) + begin;
  };
  const Op op;
  if (terms.size() == 1) {
    const T* x = at(0);
    for (int64_t i = 0; i < count; ++i) tile[i] = static_cast<A>(x[i]);
    return;
  }
  if (terms.size() == 2) {
    const T* x = at(0);
    const T* y = at(1);
    for (int64_t i = 0; i < count; ++i) {
      tile[i] = op(static_cast<A>(x[i]), static_cast<A>(y[i]));
    }
    return;
  }
  const size_t left = static_cast<size_t>(TreeSplit(terms.size()));
  CombineTile<T, Op>(terms.first(left), begin, count, tile, spare);
  CombineTile<T, Op>(terms.subspan(left), begin, count, spare, spare + kTile);
  for (int64_t i = 0; i < count; ++i) tile[i] = op(tile[i], spare[i]);
}

template <typename T, typename Op>
void CombineTerms(absl::Span<const void* const> terms, int64_t count,
                  void* out) {
  using A = typename Accumulator<T>::Type;
  int levels = 1;
  for (size_t n = terms.size(); n > 1; n = (n + 1) / 2) ++levels;
  std::vector<A> tiles(static_cast<size_t>(levels * kTile));
  for (int64_t begin = 0; begin < count; begin += kTile) {
    const int64_t n = std::min(kTile, count - begin);
    CombineTile<T, Op>(terms, begin, n, tiles.data(), tiles.data() + kTile);
    Store(tiles.data(), n, static_cast<T*>(out) + begin);
  }
}

}  // namespace

template <typename T>
void SumTerms(absl::Span<const void* const> terms, int64_t count, void* out) {
  CombineTerms<T, Add>(terms, count, out);
}

template <typename T>
void MaxTerms(absl::Span<const void* const> terms, int64_t count, void* out) {
  CombineTerms<T, Max>(terms, count, out);
}

template void SumTerms<float>(absl::Span<const void* const>, int64_t, void*);
template void SumTerms<double>(absl::Span<const void* const>, int64_t, void*);
template void SumTerms<BFloat16>(absl::Span<const void* const>, int64_t, void*);
template void SumTerms<int32_t>(absl::Span<const void* const>, int64_t, void*);
template void SumTerms<int64_t>(absl::Span<const void* const>, int64_t, void*);
template void MaxTerms<float>(absl::Span<const void* const>, int64_t, void*);
template void MaxTerms<int64_t>(absl::Span<const void* const>, int64_t, void*);

}  // namespace lorica
