#include "runtime/cpu/attention/few_queries.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "runtime/cpu/attention/plan.h"
#include "runtime/cpu/attention/tiles.h"
#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/queue.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/attention/few_queries.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

constexpr int kMaxHeads = 4;  // Query heads that share a pass over the keys.
constexpr int kMaxVectors = 4;

// A range of keys and some of the query heads that it serves.
template <typename T>
struct Pass {
  Pass(const FewQueries& few, int64_t first_head)
      : dim(few.args->head_dim),
        keys(few.keys.size()),
        scale(few.args->scale),
        k(few.args->k.Row<const T>(few.keys.begin) + few.kv_head * dim),
        k_stride(few.args->k.row_stride),
        v(few.args->v.Row<const T>(few.keys.begin) + few.kv_head * dim),
        v_stride(few.args->v.row_stride),
        q(few.args->q.Row<const T>(few.query) +
          (few.kv_head * few.group + first_head) * dim) {}

  int64_t dim;
  int64_t keys;
  float scale;
  const T* k;
  int64_t k_stride;
  const T* v;
  int64_t v_stride;
  const T* q;  // kHeads heads side by side.
};

using Scores = float[kMaxHeads][kKeysPerRange];

template <int kHeads, typename T>
void ScoreKeys(const Pass<T>& pass, Scores& scores) {
  HWY_ALIGN float q[kHeads * kMaxHeadDim];
  ForVectors(kHeads * pass.dim, [&](auto lanes, int64_t i) HWY_ATTR {
    Store(Load(pass.q + i, lanes), q + i, lanes);
  });
  for (int64_t key = 0; key < pass.keys; ++key) {
    const T* k = pass.k + key * pass.k_stride;
    FloatVec sum[kHeads];
    for (auto& v : sum) v = hn::Zero(Floats());
    ForVectors(pass.dim, [&](auto lanes, int64_t i) HWY_ATTR {
      const auto vk = Load(k + i, lanes);
      for (int h = 0; h < kHeads; ++h) {
        sum[h] = hn::MulAdd(Load(q + h * pass.dim + i, lanes), vk, sum[h]);
      }
    });
    for (int h = 0; h < kHeads; ++h) {
      scores[h][key] = pass.scale * SumOfLanes(sum[h]);
    }
  }
}

// Turns scores into exp(score - largest); returns {largest, sum}.
struct MaxAndSum {
  float max;
  float sum;
};
MaxAndSum Exponentiate(float* scores, int64_t n) {
  const float largest = *std::max_element(scores, scores + n);
  const auto offset = hn::Set(Floats(), largest);
  ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
    Store(Exp(hn::Sub(Load(scores + i, lanes), offset)), scores + i, lanes);
  });
  auto sum = hn::Zero(Floats());
  ForVectors(n, [&](auto lanes, int64_t i)
                    HWY_ATTR { sum = hn::Add(sum, Load(scores + i, lanes)); });
  return {largest, SumOfLanes(sum)};
}

// Columns `col` on, kVectors vectors of them, of the sums of weight v over the
// keys; `out` holds the heads' sums `out_stride` apart.
template <int kHeads, int kVectors, typename T, typename Lanes>
HWY_INLINE void WeighColumns(const Pass<T>& pass, const Scores& weights,
                             int64_t col, Lanes lanes, float* out,
                             int64_t out_stride) {
  const Floats d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  FloatVec sum[kHeads][kVectors];
  for (auto& head : sum) {
    for (auto& v : head) v = hn::Zero(d);
  }
  for (int64_t key = 0; key < pass.keys; ++key) {
    const T* v = pass.v + key * pass.v_stride + col;
    FloatVec values[kVectors];
    for (int i = 0; i < kVectors; ++i) values[i] = Load(v + i * step, lanes);
    for (int h = 0; h < kHeads; ++h) {
      const auto weight = hn::Set(d, weights[h][key]);
      for (int i = 0; i < kVectors; ++i) {
        sum[h][i] = hn::MulAdd(weight, values[i], sum[h][i]);
      }
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int i = 0; i < kVectors; ++i) {
      Store(sum[h][i], out + h * out_stride + col + i * step, lanes);
    }
  }
}

template <int kHeads, typename T>
void AttendHeads(const Pass<T>& pass, float* partial) {
  const int64_t stride = pass.dim + 2;
  HWY_ALIGN Scores scores;
  ScoreKeys<kHeads>(pass, scores);
  for (int h = 0; h < kHeads; ++h) {
    const auto [max, sum] = Exponentiate(scores[h], pass.keys);
    partial[h * stride] = max;
    partial[h * stride + 1] = sum;
  }
  const int64_t block = kMaxVectors * static_cast<int64_t>(hn::Lanes(Floats()));
  float* out = partial + 2;
  int64_t col = 0;
  for (; col + block <= pass.dim; col += block) {
    WeighColumns<kHeads, kMaxVectors>(pass, scores, col, Whole(), out, stride);
  }
  ForVectors(pass.dim - col, [&](auto lanes, int64_t i) HWY_ATTR {
    WeighColumns<kHeads, 1>(pass, scores, col + i, lanes, out, stride);
  });
}

// The softmax of the query's heads over the range, not yet normalized:
// `partial` is [group, head_dim + 2], per head the largest score, the sum of
// exp(score - largest) and the sum of exp(score - largest) v.
void AttendRange(const FewQueries& few, float* partial) {
  DispatchFloat(few.args->q.dtype, [&](auto t) HWY_ATTR {
    const int64_t stride = few.args->head_dim + 2;
    for (int64_t head = 0; head < few.group;) {
      const Pass<decltype(t)> pass(few, head);
      float* to = partial + head * stride;
      const int64_t left = few.group - head;
      if (left >= kMaxHeads) {
        AttendHeads<kMaxHeads>(pass, to);
      } else if (left == 3) {
        AttendHeads<3>(pass, to);
      } else if (left == 2) {
        AttendHeads<2>(pass, to);
      } else {
        AttendHeads<1>(pass, to);
      }
      head += std::min<int64_t>(left, kMaxHeads);
    }
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(AttendRange);

namespace {

// One query row of a segment of few queries and the keys it sees.
struct FewRow {
  int64_t query;
  Range keys;
  int64_t first_task;  // Its ranges of keys are consecutive tasks.
  int64_t ranges;
};

// Merges the ranges' partial softmaxes of one query head in order.
void MergeRanges(const AttentionArgs& args, const FewRow& row, int64_t head,
                 const float* partials, int64_t stride) {
  float max = partials[0];
  for (int64_t r = 1; r < row.ranges; ++r) {
    max = std::max(max, partials[r * stride]);
  }
  const int64_t dim = args.head_dim;
  float sum = 0.0f;
  std::vector<float> out(static_cast<size_t>(dim), 0.0f);
  for (int64_t r = 0; r < row.ranges; ++r) {
    const float* partial = partials + r * stride;
    const float factor = std::exp(partial[0] - max);
    sum += factor * partial[1];
    for (int64_t i = 0; i < dim; ++i) {
      out[static_cast<size_t>(i)] += factor * partial[2 + i];
    }
  }
  args.lse.Row<float>(head)[row.query] = max + std::log(sum);
  DispatchFloat(args.out.dtype, [&](auto t) {
    auto* to = args.out.Row<decltype(t)>(row.query) + head * dim;
    for (int64_t i = 0; i < dim; ++i) {
      to[i] = decltype(t)(out[static_cast<size_t>(i)] / sum);
    }
  });
}

std::vector<FewRow> FewRowsOf(const AttentionArgs& args) {
  std::vector<FewRow> rows;
  int64_t tasks = 0;
  for (const Segment& s : args.segments) {
    if (s.num_queries > kFewQueries) continue;
    for (int64_t i = 0; i < s.num_queries; ++i) {
      const int64_t visible = s.num_keys - s.num_queries + i + 1;
      const int64_t ranges = (visible + kKeysPerRange - 1) / kKeysPerRange;
      rows.push_back({.query = s.first_query + i,
                      .keys = {s.first_key, s.first_key + visible},
                      .first_task = tasks,
                      .ranges = ranges});
      tasks += ranges;
    }
  }
  return rows;
}

}  // namespace

void AttendFewQuerySegments(Queue* queue, const AttentionArgs& args) {
  const std::vector<FewRow> rows = FewRowsOf(args);
  if (rows.empty()) return;
  const HeadShape shape(args);
  const int64_t ranges = rows.back().first_task + rows.back().ranges;
  const int64_t stride = shape.head_dim + 2;
  // Ordered [row, kv_head, range, head of the group].
  float* partials = queue->ScratchFor<float>(ScratchUse::kOperands,
                                             ranges * shape.heads * stride);
  const auto partial_of = [&](const FewRow& row, int64_t kv_head,
                              int64_t range) {
    const int64_t at =
        row.first_task * shape.kv_heads + kv_head * row.ranges + range;
    return partials + at * shape.group * stride;
  };
#pragma omp parallel for schedule(dynamic, 1) num_threads(queue->threads)
  for (int64_t task = 0; task < ranges * shape.kv_heads; ++task) {
    const auto after =
        std::upper_bound(rows.begin(), rows.end(), task / shape.kv_heads,
                         [](int64_t value, const FewRow& row) {
                           return value < row.first_task;
                         });
    const FewRow& row = *(after - 1);
    const int64_t within = task - row.first_task * shape.kv_heads;
    const int64_t kv_head = within / row.ranges;
    const int64_t range = within % row.ranges;
    const int64_t begin = row.keys.begin + range * kKeysPerRange;
    const int64_t end = std::min(row.keys.end, begin + kKeysPerRange);
    HWY_DYNAMIC_DISPATCH(AttendRange)
    ({.args = &args,
      .query = row.query,
      .kv_head = kv_head,
      .group = shape.group,
      .keys = {begin, end}},
     partial_of(row, kv_head, range));
  }
  for (const FewRow& row : rows) {
    for (int64_t head = 0; head < shape.heads; ++head) {
      const float* first =
          partial_of(row, head / shape.group, 0) + head % shape.group * stride;
      MergeRanges(args, row, head, first, shape.group * stride);
    }
  }
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
