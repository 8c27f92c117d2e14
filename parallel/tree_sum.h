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

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/tensor.h"

namespace lorica {

// How many of `count` > 1 terms the left branch holds.
constexpr int64_t TreeSplit(int64_t count) {
  int64_t power = 1;
  while (2 * power < count) power *= 2;
  return power;
}

// *left += right, elementwise for tensors of one shape.
inline void AddTerm(double right, double* left) { *left += right; }
void AddTerm(const Tensor& right, Tensor* left);

// T(0, n) of terms given one by one, in index order. Holds one partial sum per
// set bit of n: those of the complete subtrees so far. A Tensor given away is
// overwritten.
template <typename Term>
class TreeSum {
 public:
  void Add(Term term) {
    // A subtree is complete when its right half is: the binary counter.
    size_t level = 0;
    for (; level < partial_.size() && partial_[level].has_value(); ++level) {
      AddTerm(term, &*partial_[level]);
      term = std::move(*partial_[level]);
      partial_[level].reset();
    }
    if (level == partial_.size()) partial_.emplace_back();
    partial_[level] = std::move(term);
  }

  // The sum, and starts again; absent if no term was added.
  std::optional<Term> Take() {
    std::optional<Term> sum;
    for (std::optional<Term>& partial : partial_) {
      if (!partial.has_value()) continue;
      if (sum.has_value()) AddTerm(*sum, &*partial);
      sum = std::move(partial);
    }
    partial_.clear();
    return sum;
  }

 private:
  std::vector<std::optional<Term>> partial_;  // Of 2^level terms.
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_TREE_SUM_H_
