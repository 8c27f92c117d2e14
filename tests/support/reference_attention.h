// The references of attention and of the loss head; see reference.h.
#ifndef LORICA_TESTS_SUPPORT_REFERENCE_ATTENTION_H_
#define LORICA_TESTS_SUPPORT_REFERENCE_ATTENTION_H_

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/support/reference.h"

namespace lorica::reference {

// Maxima are taken of real parts; any offset gives the same softmax.
inline double RealPart(double x) { return x; }
inline double RealPart(const std::complex<double>& x) { return x.real(); }

// The softmax of `scores` and the log of the sum of their exponentials.
template <typename S>
struct Softmax {
  std::vector<S> weights;
  S lse;
};
template <typename S>
Softmax<S> SoftmaxOf(const std::vector<S>& scores) {
  double most = -std::numeric_limits<double>::infinity();
  for (const S& score : scores) most = std::max(most, RealPart(score));
  Softmax<S> result;
  S sum = 0.0;
  for (const S& score : scores) {
    result.weights.push_back(std::exp(score - most));
    sum += result.weights.back();
  }
  for (S& weight : result.weights) weight /= sum;
  result.lse = most + std::log(sum);
  return result;
}

struct AttentionShape {
  std::vector<Segment> segments;
  int64_t head_dim = 0;
  double scale = 1.0;
};

// One query of one head, and the keys it sees.
struct Place {
  int64_t query;      // Row of q.
  int64_t head;       // Of the query.
  int64_t q_col;      // First column of the query's head.
  int64_t kv_col;     // First column of its key/value head.
  int64_t first_key;  // Row of k.
  int64_t keys;
};

template <typename S, typename Body>
void ForPlaces(const Matrix<S>& q, const Matrix<S>& k,
               const AttentionShape& shape, const Body& body) {
  const int64_t dim = shape.head_dim;
  const int64_t group = q.cols / k.cols;
  for (const Segment& s : shape.segments) {
    for (int64_t head = 0; head < q.cols / dim; ++head) {
      for (int64_t i = 0; i < s.num_queries; ++i) {
        body(Place{.query = s.first_query + i,
                   .head = head,
                   .q_col = head * dim,
                   .kv_col = head / group * dim,
                   .first_key = s.first_key,
                   .keys = s.num_keys - s.num_queries + i + 1});
      }
    }
  }
}

// The products of the row of `x` at the place's query with the rows of `y` at
// its keys.
template <typename S>
std::vector<S> ProductsAt(const Place& at, const Matrix<S>& x,
                          const Matrix<S>& y, int64_t dim) {
  std::vector<S> products;
  for (int64_t j = 0; j < at.keys; ++j) {
    S sum = 0.0;
    for (int64_t c = 0; c < dim; ++c) {
      sum += x(at.query, at.q_col + c) * y(at.first_key + j, at.kv_col + c);
    }
    products.push_back(sum);
  }
  return products;
}

template <typename S>
Softmax<S> WeightsAt(const Place& at, const Matrix<S>& q, const Matrix<S>& k,
                     const AttentionShape& shape) {
  std::vector<S> scores = ProductsAt(at, q, k, shape.head_dim);
  for (S& score : scores) score *= shape.scale;
  return SoftmaxOf(scores);
}

template <typename S>
struct AttentionResult {
  Matrix<S> out;
  Matrix<S> lse;  // [heads, T]
};

template <typename S>
AttentionResult<S> Attention(const Matrix<S>& q, const Matrix<S>& k,
                             const Matrix<S>& v, const AttentionShape& shape) {
  AttentionResult<S> result = {Matrix<S>(q.rows, q.cols),
                               Matrix<S>(q.cols / shape.head_dim, q.rows)};
  ForPlaces(q, k, shape, [&](const Place& at) {
    const Softmax<S> softmax = WeightsAt(at, q, k, shape);
    result.lse(at.head, at.query) = softmax.lse;
    for (int64_t j = 0; j < at.keys; ++j) {
      for (int64_t c = 0; c < shape.head_dim; ++c) {
        result.out(at.query, at.q_col + c) +=
            softmax.weights[static_cast<size_t>(j)] *
            v(at.first_key + j, at.kv_col + c);
      }
    }
  });
  return result;
}

template <typename S>
struct AttentionGrads {
  Matrix<S> dq;
  Matrix<S> dk;
  Matrix<S> dv;
};

// With kAbsolute v and dout are absolute values, while q and k keep their
// signs, which the weights need.
template <typename S>
AttentionGrads<S> AttentionBackward(const Matrix<S>& dout, const Matrix<S>& q,
                                    const Matrix<S>& k, const Matrix<S>& v,
                                    const AttentionShape& shape, Signs signs) {
  AttentionGrads<S> grads = {Matrix<S>(q.rows, q.cols),
                             Matrix<S>(k.rows, k.cols),
                             Matrix<S>(v.rows, v.cols)};
  const bool absolute = signs == Signs::kAbsolute;
  const Matrix<S> q_factor = absolute ? Absolute(q) : q;
  const Matrix<S> k_factor = absolute ? Absolute(k) : k;
  ForPlaces(q, k, shape, [&](const Place& at) {
    const std::vector<S> p = WeightsAt(at, q, k, shape).weights;
    const std::vector<S> dp = ProductsAt(at, dout, v, shape.head_dim);
    S dot = 0.0;
    for (size_t j = 0; j < p.size(); ++j) dot += p[j] * dp[j];
    for (int64_t j = 0; j < at.keys; ++j) {
      const auto index = static_cast<size_t>(j);
      const int64_t key = at.first_key + j;
      const S ds =
          shape.scale * p[index] * Difference<S>(signs, dp[index], dot);
      for (int64_t c = 0; c < shape.head_dim; ++c) {
        const int64_t q_col = at.q_col + c;
        const int64_t kv_col = at.kv_col + c;
        grads.dv(key, kv_col) += p[index] * dout(at.query, q_col);
        grads.dq(at.query, q_col) += ds * k_factor(key, kv_col);
        grads.dk(key, kv_col) += ds * q_factor(at.query, q_col);
      }
    }
  });
  return grads;
}

// The largest magnitude that a score's terms can sum to.
inline double ScoreMagnitude(const Matrix<double>& q, const Matrix<double>& k,
                             const AttentionShape& shape) {
  const Matrix<double> q_abs = Absolute(q);
  const Matrix<double> k_abs = Absolute(k);
  double most = 0.0;
  ForPlaces(q, k, shape, [&](const Place& at) {
    for (const double sum : ProductsAt(at, q_abs, k_abs, shape.head_dim)) {
      most = std::max(most, shape.scale * sum);
    }
  });
  return most;
}

// The head's loss of one row: the log of the sum of its exponentials less the
// target's logit, for a vocabulary that starts at row `first_vocab` of the
// whole; a target outside it counts as a logit of zero.
template <typename S>
struct HeadRow {
  S max;
  S sum;  // Of exp(logit - max).
  S target_logit;
};

template <typename S>
std::vector<HeadRow<S>> LogitStats(const Matrix<S>& h, const Matrix<S>& weight,
                                   const std::vector<int32_t>& targets,
                                   int64_t first_vocab) {
  const Matrix<S> logits = Matmul(MatmulForm::kNT, h, weight);
  std::vector<HeadRow<S>> rows;
  for (int64_t r = 0; r < h.rows; ++r) {
    double most = -std::numeric_limits<double>::infinity();
    for (int64_t c = 0; c < logits.cols; ++c) {
      most = std::max(most, RealPart(logits(r, c)));
    }
    HeadRow<S> row = {.max = most, .sum = 0.0, .target_logit = 0.0};
    for (int64_t c = 0; c < logits.cols; ++c) {
      row.sum += std::exp(logits(r, c) - most);
    }
    const int64_t target = targets[static_cast<size_t>(r)] - first_vocab;
    if (0 <= target && target < logits.cols)
      row.target_logit = logits(r, target);
    rows.push_back(row);
  }
  return rows;
}

// Of the whole vocabulary, from those of its slices.
template <typename S>
std::vector<HeadRow<S>> MergeLogitStats(
    const std::vector<std::vector<HeadRow<S>>>& slices) {
  std::vector<HeadRow<S>> rows = slices[0];
  for (size_t r = 0; r < rows.size(); ++r) {
    for (const auto& slice : slices) {
      rows[r].max = std::max(rows[r].max, slice[r].max);
    }
    rows[r].sum = 0.0;
    rows[r].target_logit = 0.0;
    for (const auto& slice : slices) {
      rows[r].sum += slice[r].sum * std::exp(slice[r].max - rows[r].max);
      rows[r].target_logit += slice[r].target_logit;
    }
  }
  return rows;
}

// `stats` are those of the whole vocabulary. A negative target marks a row
// without loss.
template <typename S>
Matrix<S> LogitGrad(const Matrix<S>& h, const Matrix<S>& weight,
                    const std::vector<int32_t>& targets,
                    const std::vector<HeadRow<S>>& stats, int64_t first_vocab,
                    double scale, Signs signs) {
  Matrix<S> grad = Matmul(MatmulForm::kNT, h, weight);
  for (int64_t r = 0; r < grad.rows; ++r) {
    const HeadRow<S>& row = stats[static_cast<size_t>(r)];
    const int32_t target = targets[static_cast<size_t>(r)];
    for (int64_t c = 0; c < grad.cols; ++c) {
      const bool hit = target == first_vocab + c;
      grad(r, c) =
          (target < 0 ? 0.0 : scale) *
          Difference<S>(signs, std::exp(grad(r, c) - row.max) / row.sum,
                        hit ? 1.0 : 0.0);
    }
  }
  return Matmul(MatmulForm::kNN, grad,
                signs == Signs::kAbsolute ? Absolute(weight) : weight);
}

}  // namespace lorica::reference

#endif  // LORICA_TESTS_SUPPORT_REFERENCE_ATTENTION_H_
