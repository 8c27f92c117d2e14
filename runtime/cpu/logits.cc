#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/queue.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/logits.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

// Exponentials are kept tile after tile, each tile a dense matrix [C, rows of
// the tile], so that the products read and write dense operands.

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// The largest of the n logits.
float LargestLogit(const float* logits, int64_t n) {
  float largest = logits[0];
  auto most = hn::Set(Floats(), largest);
  const auto step = static_cast<int64_t>(hn::Lanes(Floats()));
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    most = hn::Max(most, Load(logits + i, Whole()));
  }
  largest = hn::GetLane(hn::MaxOfLanes(Floats(), most));
  for (; i < n; ++i) largest = std::max(largest, logits[i]);
  return largest;
}

// The sum of exp(logit - largest). Where exps is present the terms are stored
// there.
float SumOfExps(const float* logits, int64_t n, float largest, View exps) {
  const Floats d;
  const auto offset = hn::Set(d, largest);
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  DispatchFloat(exps.dtype, [&](auto t) HWY_ATTR {
    using T = decltype(t);
    T* to = exps.As<T>();
    ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
      auto e = Exp(hn::Sub(Load(logits + i, lanes), offset));
      if (to != nullptr) Store(e, to + i, lanes);
      if (i + step > n) {
        e = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - i)), e);
      }
      sum = hn::Add(sum, e);
    });
  });
  return SumOfLanes(sum);
}

void ScaleExps(View exps, int64_t n, float factor) {
  const auto scale = hn::Set(Floats(), factor);
  DispatchFloat(exps.dtype, [&](auto t) HWY_ATTR {
    auto* data = exps.As<decltype(t)>();
    ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
      Store(hn::Mul(Load(data + i, lanes), scale), data + i, lanes);
    });
  });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(LargestLogit);
HWY_EXPORT(SumOfExps);
HWY_EXPORT(ScaleExps);

namespace {

// Vocabulary rows of tile `index`.
Range TileRows(const View& weight, int64_t tile, int64_t index) {
  return {index * tile, std::min(weight.rows, (index + 1) * tile)};
}

// The dense matrix [C, vocab.size()] of exps that belongs to a tile.
View TileExps(const View& exps, Range vocab) {
  if (!exps.present()) return {};
  View tile = exps;
  tile.data = exps.As<char>() +
              static_cast<size_t>(exps.rows * vocab.begin) * SizeOf(exps.dtype);
  tile.cols = vocab.size();
  tile.row_stride = vocab.size();
  return tile;
}

// Row `row` of a tile's exps, absent as they are.
View ExpsRow(const View& exps, int64_t row) {
  return exps.present() ? exps.Rows({row, row + 1}) : View{};
}

// Merges a tile's logits [C, vocab.size()] into the statistics of some rows.
void AddTile(const LogitStatsArgs& args, const View& logits, Range vocab,
             Range rows) {
  const int64_t n = vocab.size();
  const View exps = TileExps(args.exps, vocab);
  float* maxima = args.stats.Row<float>(0);
  float* sums = args.stats.Row<float>(1);
  float* target_logits = args.stats.Row<float>(2);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float* x = logits.Row<const float>(row);
    const float largest = HWY_DYNAMIC_DISPATCH(LargestLogit)(x, n);
    const float sum =
        HWY_DYNAMIC_DISPATCH(SumOfExps)(x, n, largest, ExpsRow(exps, row));
    if (args.tile_max.present()) {
      args.tile_max.Row<float>(vocab.begin / args.tile)[row] = largest;
    }
    const float merged = std::max(maxima[row], largest);
    sums[row] = sums[row] * std::exp(maxima[row] - merged) +
                sum * std::exp(largest - merged);
    maxima[row] = merged;
    const int64_t target =
        args.targets.As<const int32_t>()[row] - args.first_vocab - vocab.begin;
    if (0 <= target && target < n) target_logits[row] = x[target];
  }
}

}  // namespace

void LogitStats(Queue* queue, const LogitStatsArgs& args) {
  const int64_t rows = args.h.rows;
  std::fill_n(args.stats.Row<float>(0), rows,
              -std::numeric_limits<float>::infinity());
  std::fill_n(args.stats.Row<float>(1), rows, 0.0f);
  std::fill_n(args.stats.Row<float>(2), rows, 0.0f);
  float* buffer =
      queue->ScratchFor<float>(ScratchUse::kLogits, rows * args.tile);
  for (int64_t first = 0; first < args.weight.rows; first += args.tile) {
    const Range vocab = TileRows(args.weight, args.tile, first / args.tile);
    const View logits = {buffer, DType::kF32, rows, vocab.size(), vocab.size()};
    Matmul(queue, {.form = MatmulForm::kNT,
                   .a = args.h,
                   .b = args.weight.Rows(vocab),
                   .y = logits});
    ParallelRows(*queue, rows, vocab.size(),
                 [&](Range range) { AddTile(args, logits, vocab, range); });
  }
}

void MergeLogitStats(Queue*, const MergeLogitStatsArgs& args) {
  const View& slices = args.slices;
  for (int64_t row = 0; row < slices.cols; ++row) {
    float largest = slices.Row<const float>(0)[row];
    for (int64_t s = 3; s < slices.rows; s += 3) {
      largest = std::max(largest, slices.Row<const float>(s)[row]);
    }
    double sum = 0.0;
    double target = 0.0;
    for (int64_t s = 0; s < slices.rows; s += 3) {
      const double below = double{slices.Row<const float>(s)[row]} - largest;
      sum += slices.Row<const float>(s + 1)[row] * std::exp(below);
      target += slices.Row<const float>(s + 2)[row];
    }
    args.stats.Row<float>(0)[row] = largest;
    args.stats.Row<float>(1)[row] = static_cast<float>(sum);
    args.stats.Row<float>(2)[row] = static_cast<float>(target);
  }
}

namespace {

// Turns a tile's exponentials into scale * (softmax - onehot(target)).
void GradOfTile(const LogitGradArgs& args, const View& exps, Range vocab,
                Range rows) {
  const float scale = args.times.present()
                          ? args.scale * *args.times.As<const float>()
                          : args.scale;
  const float* maxima = args.stats.Row<const float>(0);
  const float* sums = args.stats.Row<const float>(1);
  const float* tile_max =
      args.tile_max.Row<const float>(vocab.begin / args.tile);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int32_t id = args.targets.As<const int32_t>()[row];
    const float factor =
        id < 0 ? 0.0f
               : scale * std::exp(tile_max[row] - maxima[row]) / sums[row];
    HWY_DYNAMIC_DISPATCH(ScaleExps)
    (exps.Rows({row, row + 1}), vocab.size(), factor);
    const int64_t target = id - args.first_vocab - vocab.begin;
    if (target < 0 || target >= vocab.size()) continue;
    DispatchFloat(exps.dtype, [&](auto t) {
      auto& value = exps.Row<decltype(t)>(row)[target];
      value = decltype(t)(static_cast<float>(value) - scale);
    });
  }
}

}  // namespace

void LogitGrad(Queue* queue, const LogitGradArgs& args) {
  View sum = args.dh;
  if (sum.dtype != DType::kF32) {
    sum = {queue->ScratchFor<float>(ScratchUse::kSum, sum.elements()),
           DType::kF32, sum.rows, sum.cols, sum.cols};
  }
  for (int64_t first = 0; first < args.weight.rows; first += args.tile) {
    const Range vocab = TileRows(args.weight, args.tile, first / args.tile);
    const View exps = TileExps(args.exps, vocab);
    ParallelRows(*queue, exps.rows, vocab.size(),
                 [&](Range range) { GradOfTile(args, exps, vocab, range); });
    Matmul(queue, {.form = MatmulForm::kNN,
                   .a = exps,
                   .b = args.weight.Rows(vocab),
                   .y = sum,
                   .update = first == 0 ? Update::kAssign : Update::kAdd});
  }
  if (sum.data != args.dh.data) Convert(queue, sum, 1.0f, args.dh);
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
