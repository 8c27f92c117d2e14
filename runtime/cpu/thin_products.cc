#include "runtime/cpu/thin_products.h"

#include <algorithm>
#include <cstdint>

#include "runtime/cpu/parallel.h"
#include "runtime/cpu/queue.h"
#include "runtime/cpu/thin_kernels.h"

namespace lorica::cpu {
namespace {

constexpr int64_t kVector = 16;      // Lanes.
constexpr int64_t kNarrow = 8;       // Columns that share a vector with others.
constexpr int64_t kProjectRows = 4;  // Rows ProjectRows takes together.

int64_t PairsOf(int64_t n) { return (n + 1) / 2; }
int64_t RoundUp(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// How a matrix of BF16 is packed: in pairs of elements that lie side by side in
// its rows, or one below the other in its columns. Each row, or column, makes a
// line of pairs.
enum class Pairs : uint8_t { kInRows, kInColumns };

int64_t LinesOf(const View& x, Pairs pairs) {
  return pairs == Pairs::kInRows ? x.rows : x.cols;
}
int64_t LengthOf(const View& x, Pairs pairs) {
  return pairs == Pairs::kInRows ? x.cols : x.rows;
}

// Writes pair p of line i of x to y[place(p, i)]. An odd last element is paired
// with zero. Places that no pair goes to are left alone.
template <typename Place>
void Pack(const View& x, Pairs pairs, const Place& place, uint32_t* y) {
  const int64_t length = LengthOf(x, pairs);
  const int64_t whole = length / 2;
  if (pairs == Pairs::kInRows) {
    for (int64_t i = 0; i < x.rows; ++i) {
      const auto* row = x.Row<const BFloat16>(i);
      for (int64_t p = 0; p < whole; ++p) {
        y[place(p, i)] = row[2 * p].bits | uint32_t{row[2 * p + 1].bits} << 16;
      }
      if (length % 2 == 1) y[place(whole, i)] = row[length - 1].bits;
    }
    return;
  }
  for (int64_t p = 0; p < whole; ++p) {
    const auto* upper = x.Row<const BFloat16>(2 * p);
    const auto* lower = x.Row<const BFloat16>(2 * p + 1);
    for (int64_t i = 0; i < x.cols; ++i) {
      y[place(p, i)] = upper[i].bits | uint32_t{lower[i].bits} << 16;
    }
  }
  if (length % 2 == 0) return;
  const auto* last = x.Row<const BFloat16>(length - 1);
  for (int64_t i = 0; i < x.cols; ++i) y[place(whole, i)] = last[i].bits;
}

// x as [lines, pairs], with zero lines up to `lines`.
uint32_t* PackLines(Queue* queue, const View& x, Pairs pairs, int64_t lines) {
  const int64_t count = PairsOf(LengthOf(x, pairs));
  uint32_t* packed =
      queue->ScratchFor<uint32_t>(ScratchUse::kWideA, lines * count);
  const int64_t present = LinesOf(x, pairs);
  std::fill_n(packed + present * count, (lines - present) * count, 0u);
  Pack(
      x, pairs, [count](int64_t p, int64_t i) { return i * count + p; },
      packed);
  return packed;
}

// How the right operand of a product lies for its sum.
Pairs RightPairs(const MatmulArgs& args) {
  return args.form == MatmulForm::kNT ? Pairs::kInRows : Pairs::kInColumns;
}

void Project(Queue* queue, const MatmulArgs& args) {
  const Pairs pairs = RightPairs(args);
  const int64_t cols = LinesOf(args.b, pairs);
  const bool narrow = cols <= kNarrow;
  ThinProjection projection = {.x = args.a,
                               .lanes = RoundUp(cols, kVector),
                               .step = narrow ? 4 : 2,
                               .scale = args.scale,
                               .y = args.y};
  const int64_t lanes = projection.lanes;
  const int64_t steps =
      (LengthOf(args.b, pairs) + projection.step - 1) / projection.step;
  uint32_t* packed =
      queue->ScratchFor<uint32_t>(ScratchUse::kWideB, steps * lanes);
  std::fill_n(packed, steps * lanes, 0u);
  if (narrow) {
    Pack(
        args.b, pairs,
        [](int64_t p, int64_t i) { return p / 2 * kVector + 2 * i + p % 2; },
        packed);
  } else {
    Pack(
        args.b, pairs, [lanes](int64_t p, int64_t i) { return p * lanes + i; },
        packed);
  }
  projection.w = packed;
  ParallelRanges(*queue, args.y.rows, kProjectRows, args.a.elements(),
                 [&](Range rows) { ProjectRows(projection, rows); });
}

// y = a' b with a thin, or with b thin, which is the transpose of b' a.
void Gradient(Queue* queue, const MatmulArgs& args) {
  const bool left_is_thin = args.y.rows <= args.y.cols;
  const View& thin = left_is_thin ? args.a : args.b;
  ThinGradient gradient = {.u = PackLines(queue, thin, Pairs::kInColumns,
                                          RoundUp(thin.cols, kGradientRows)),
                           .pairs = PairsOf(thin.rows),
                           .x = left_is_thin ? args.b : args.a,
                           .scale = args.scale,
                           .rows = thin.cols,
                           .y = args.y.As<float>(),
                           .row_step = left_is_thin ? args.y.row_stride : 1,
                           .col_step = left_is_thin ? 1 : args.y.row_stride};
  ParallelRanges(*queue, gradient.x.cols, kGradientCols, gradient.x.elements(),
                 [&](Range cols) { AddGradientCols(gradient, cols); });
}

}  // namespace

bool IsThin(const MatmulArgs& args) {
  if (args.a.dtype != DType::kBF16 || args.b.dtype != DType::kBF16 ||
      args.bias.present()) {
    return false;
  }
  const bool add = args.update == Update::kAdd;
  if (args.form == MatmulForm::kTN) {
    return add && args.y.dtype == DType::kF32 &&
           std::min(args.y.rows, args.y.cols) <= kMaxThin;
  }
  return !add && args.y.cols <= kMaxThin;
}

void ThinMatmul(Queue* queue, const MatmulArgs& args) {
  if (args.form == MatmulForm::kTN) {
    Gradient(queue, args);
  } else {
    Project(queue, args);
  }
}

}  // namespace lorica::cpu
