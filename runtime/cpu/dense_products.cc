#include "runtime/cpu/dense_products.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/check.h"
#include "runtime/cpu/dense_kernels.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"

namespace lorica::cpu {
namespace {

// Rows from which a panel is worth its packing.
constexpr int64_t kMinRows = 8;
// K of a panel: 256 KiB, beside which rows of the left operands find room in a
// core's second cache. Deeper sums are taken in several panels.
constexpr int64_t kMaxDepth = 4096;
constexpr int64_t kMaxTerms = 8;
// Rows of a panel that one thread computes at least: two blocks.
constexpr int64_t kRowsOfUnit = 24;

// The terms, or parts of their K, that share a panel.
struct Chunk {
  std::array<PanelTerm, kMaxTerms> terms;
  std::array<View, kMaxTerms> b;
  int64_t size = 0;
  int64_t depth = 0;
};

// Where a sum goes on.
struct Cursor {
  int64_t term = 0;
  int64_t depth = 0;
};

Chunk NextChunk(ArrayView<ProductTerm> terms, Cursor* cursor) {
  Chunk chunk;
  while (cursor->term < terms.size && chunk.depth < kMaxDepth) {
    const ProductTerm& term = terms[cursor->term];
    const int64_t end =
        std::min(term.a.cols, cursor->depth + kMaxDepth - chunk.depth);
    const auto at = static_cast<size_t>(chunk.size++);
    chunk.terms[at] = {term.a, {cursor->depth, end}};
    chunk.b[at] = term.b;
    chunk.depth += end - cursor->depth;
    *cursor = end == term.a.cols ? Cursor{cursor->term + 1, 0}
                                 : Cursor{cursor->term, end};
  }
  return chunk;
}

int64_t DepthOf(ArrayView<ProductTerm> terms) {
  int64_t depth = 0;
  for (const ProductTerm& term : terms) depth += term.a.cols;
  return depth;
}

// Some rows of the columns of one panel.
struct Task {
  int64_t first_col;
  Range rows;
};

// Work in units of some rows of a panel, panel after panel. A thread's share is
// an equal number of units in a row, so it packs each of its panels once.
class Units {
 public:
  explicit Units(const View& y)
      : panels_((y.cols + kPanelCols - 1) / kPanelCols),
        of_panel_((y.rows + kRowsOfUnit - 1) / kRowsOfUnit),
        rows_(y.rows) {}

  Range ShareOf(int64_t thread, int64_t threads) const {
    const int64_t count = panels_ * of_panel_;
    return {count * thread / threads, count * (thread + 1) / threads};
  }
  // Takes the units of the next panel from a share.
  Task Take(Range* share) const {
    const int64_t panel = share->begin / of_panel_;
    const int64_t first = panel * of_panel_;
    const int64_t end = std::min(share->end, first + of_panel_);
    const Range rows = {(share->begin - first) * kRowsOfUnit,
                        std::min(rows_, (end - first) * kRowsOfUnit)};
    share->begin = end;
    return {panel * kPanelCols, rows};
  }

 private:
  int64_t panels_;
  int64_t of_panel_;
  int64_t rows_;
};

// Computes a task's part of y. `panel` and `sums` are the thread's own.
void SumTask(MatmulForm form, ArrayView<ProductTerm> terms, const View& bias,
             Update update, const View& y, const Task& task, uint32_t* panel,
             const View& sums) {
  const auto pack = form == MatmulForm::kNT ? PackPanelNT : PackPanelNN;
  const Range cols = {task.first_col,
                      std::min(y.cols, task.first_col + kPanelCols)};
  const View result = y.Cols(cols);
  View due;  // The bias, until it is added.
  if (bias.present()) due = bias.Cols(cols);
  View base = update == Update::kAdd ? result : View{};
  for (Cursor cursor; cursor.term < terms.size;) {
    const Chunk chunk = NextChunk(terms, &cursor);
    uint32_t* words = panel;
    for (int64_t t = 0; t < chunk.size; ++t) {
      const Range depth = chunk.terms[static_cast<size_t>(t)].depth;
      pack(chunk.b[static_cast<size_t>(t)], depth, task.first_col, words);
      words += depth.size() / 2 * kPanelCols;
    }
    View to = cursor.term == terms.size ? result : sums;
    to.cols = result.cols;
    SumRows({chunk.terms.data(), chunk.size, panel, base, due, to}, task.rows);
    base = to;
    due = {};
  }
}

}  // namespace

bool IsDense(const Queue& queue, MatmulForm form,
             ArrayView<ProductTerm> terms) {
  if (queue.bf16_products != Bf16Products::kNative) return false;
  if (form == MatmulForm::kTN || terms.size > kMaxTerms) return false;
  return std::all_of(terms.begin(), terms.end(), [](const ProductTerm& term) {
    return term.a.dtype == DType::kBF16 && term.b.dtype == DType::kBF16 &&
           term.a.cols % 2 == 0 && term.a.rows >= kMinRows;
  });
}

void SumOfProducts(Queue* queue, MatmulForm form, ArrayView<ProductTerm> terms,
                   const View& bias, Update update, const View& y) {
  DCHECK(IsDense(*queue, form, terms));
  const int64_t depth = DepthOf(terms);
  const int64_t panel_words = std::min(depth, kMaxDepth) / 2 * kPanelCols;
  // A sum of several panels waits in F32 for the last.
  const int64_t sum_words = depth <= kMaxDepth ? 0 : y.rows * kPanelCols;
  const int64_t words = panel_words + sum_words;
  auto* scratch =
      queue->ScratchFor<uint32_t>(ScratchUse::kPanels, words * queue->threads);
  const Units units(y);
#pragma omp parallel num_threads(queue->threads)
  {
    const int64_t thread = omp_get_thread_num();
    uint32_t* panel = scratch + words * thread;
    const View sums = {panel + panel_words, DType::kF32, y.rows, kPanelCols,
                       kPanelCols};
    Range share = units.ShareOf(thread, omp_get_num_threads());
    while (share.size() > 0) {
      SumTask(form, terms, bias, update, y, units.Take(&share), panel, sums);
    }
  }
}

}  // namespace lorica::cpu
