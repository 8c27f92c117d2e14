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

// The scores of one query head against the keys of the range.
template <typename T>
void ScoreKeys(const FewQueries& few, int64_t head, float* scores) {
  const AttentionArgs& args = *few.args;
  const int64_t dim = args.head_dim;
  const T* q = args.q.Row<const T>(few.query) + head * dim;
  for (int64_t key = few.keys.begin; key < few.keys.end; ++key) {
    const T* k = args.k.Row<const T>(key) + few.kv_head * dim;
    auto sum = hn::Zero(Floats());
    ForVectors(dim, [&](auto lanes, int64_t i) HWY_ATTR {
      sum = hn::MulAdd(Load(q + i, lanes), Load(k + i, lanes), sum);
    });
    scores[key - few.keys.begin] = args.scale * SumOfLanes(sum);
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

// out = the sum of weight v over the keys of the range.
template <typename T>
void WeighValues(const FewQueries& few, const float* weights, float* out) {
  const AttentionArgs& args = *few.args;
  const int64_t dim = args.head_dim;
  std::fill_n(out, dim, 0.0f);
  for (int64_t key = few.keys.begin; key < few.keys.end; ++key) {
    const T* v = args.v.Row<const T>(key) + few.kv_head * dim;
    const auto weight = hn::Set(Floats(), weights[key - few.keys.begin]);
    ForVectors(dim, [&](auto lanes, int64_t i) HWY_ATTR {
      Store(hn::MulAdd(weight, Load(v + i, lanes), Load(out + i, lanes)),
            out + i, lanes);
    });
  }
}

// Keys and values of a range stay in the cache from head to head, so memory is
// read once.
void AttendRange(const FewQueries& few, float* partial) {
  DispatchFloat(few.args->q.dtype, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    const int64_t stride = few.args->head_dim + 2;
    for (int64_t i = 0; i < few.group; ++i) {
      HWY_ALIGN float scores[kKeysPerRange];
      float* to = partial + i * stride;
      ScoreKeys<T>(few, few.kv_head * few.group + i, scores);
      const auto [max, sum] = Exponentiate(scores, few.keys.size());
      to[0] = max;
      to[1] = sum;
      WeighValues<T>(few, scores, to + 2);
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
