// The order in which Lorica adds: one fixed binary tree over an index.
//
// T(a, n) is the sum of terms a .. a + n - 1:
//
//   T(a, 1) = term a
//   T(a, n) = T(a, p) + T(a + p, n - p),   p = the largest power of two < n
//
// The global gradient is T(0, N) over the N micro-batches of a step. Data rank
// d of D holds the m = N / D micro-batches from d m on, in any number of
// accumulation steps, and the ranks' sums T(d m, m) are combined by T over d.
//
// Claim: for m a power of two the result is T(0, N), bit for bit, for every D.
// Proof: by induction over D, with S(d, k) for the tree over k ranks from d on,
// S(d, k) = T(d m, k m). S(d, 1) = T(d m, m). For k > 1 let q be the largest
// power of two < k. Then q m is a power of two, q m < k m, and 2 q >= k gives
// 2 q m >= k m, so q m is the largest power of two < k m. Hence T(d m, k m) =
// T(d m, q m) + T((d + q) m, (k - q) m) = S(d, q) + S(d + q, k - q) = S(d, k).
//
// For other m the result is still a function of (D, m) alone, the same on every
// rank and run after run, but another D may round differently. In particular
// one rank with N micro-batches, N any number, equals N ranks with one each.
#ifndef LORICA_PARALLEL_TREE_SUM_H_
#define LORICA_PARALLEL_TREE_SUM_H_

#include <bit>
#include <cstdint>

namespace lorica {

// How many of `count` > 1 terms the left branch holds.
constexpr int64_t TreeSplit(int64_t count) {
  int64_t power = 1;
  while (2 * power < count) power *= 2;
  return power;
}

// What becomes of a term of T(0, n) where they come one by one, in index order.
// There is a partial sum a level, that of level l being of 2^l terms.
struct TreeStep {
  // Bit l: the partial sum of level l is added to it, the lowest first, and
  // there is none any more.
  uint64_t joined = 0;
  // It then is the partial sum of this level; after the last term it is T(0, n)
  // and there is no level.
  int level = -1;

  friend bool operator==(const TreeStep&, const TreeStep&) = default;
};

// Of term `index` of `count`. A subtree is complete when its right half is: the
// binary counter, whose last carry goes through to the top.
constexpr TreeStep StepOfTree(int64_t index, int64_t count) {
  const auto bits = static_cast<uint64_t>(index);
  if (index + 1 == count) return {.joined = bits};
  const int level = std::countr_one(bits);
  return {.joined = (uint64_t{1} << level) - 1, .level = level};
}

// How many levels there are.
constexpr int LevelsOfTree(int64_t count) {
  return static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1)));
}

}  // namespace lorica

#endif  // LORICA_PARALLEL_TREE_SUM_H_
