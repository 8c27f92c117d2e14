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
// Fewer rows of a panel are not worth a thread of their own.
constexpr int64_t kMinRowsOfTask = 96;

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

View ColsOf(const View& v, int64_t first, int64_t count) {
  View cols = v;
  cols.data = v.As<char>() + static_cast<size_t>(first) * SizeOf(v.dtype);
  cols.cols = count;
  return cols;
}

// The columns of one panel and some of the rows.
struct Task {
  int64_t first_col;
  Range rows;
};

// How the panels, and where they are few the rows, are dealt to threads.
struct Deal {
  Deal(const View& y, int64_t threads)
      : panels((y.cols + kPanelCols - 1) / kPanelCols), rows(y.rows) {
    const int64_t most = std::max<int64_t>(1, rows / kMinRowsOfTask);
    double least_idle = 2;
    for (int64_t n = 1; n <= std::min(most, threads); ++n) {
      const int64_t turns = (panels * n + threads - 1) / threads;
      const double idle = 1 - static_cast<double>(panels * n) /
                                  static_cast<double>(turns * threads);
      // Each split packs the panels once more.
      if (idle + 0.03 * static_cast<double>(n) >= least_idle) continue;
      least_idle = idle + 0.03 * static_cast<double>(n);
      splits = n;
    }
  }

  int64_t size() const { return panels * splits; }
  Task task(int64_t index) const {
    const int64_t split = index % splits;
    return {index / splits * kPanelCols,
            {rows * split / splits, rows * (split + 1) / splits}};
  }

  int64_t panels;
  int64_t rows;
  int64_t splits = 1;
};

// Computes a task's part of y. `panel` and `sums` are the thread's own.
void SumTask(MatmulForm form, ArrayView<ProductTerm> terms, Update update,
             const View& y, const Task& task, uint32_t* panel,
             const View& sums) {
  const auto pack = form == MatmulForm::kNT ? PackPanelNT : PackPanelNN;
  const View result =
      ColsOf(y, task.first_col, std::min(kPanelCols, y.cols - task.first_col));
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
    SumRows({chunk.terms.data(), chunk.size, panel, base, to}, task.rows);
    base = to;
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
                   Update update, const View& y) {
  DCHECK(IsDense(*queue, form, terms));
  const int64_t depth = DepthOf(terms);
  const int64_t panel_words = std::min(depth, kMaxDepth) / 2 * kPanelCols;
  // A sum of several panels waits in F32 for the last.
  const int64_t sums = depth <= kMaxDepth ? 0 : y.rows * kPanelCols;
  const int64_t words = panel_words + sums;
  auto* scratch =
      queue->ScratchFor<uint32_t>(ScratchUse::kPanels, words * queue->threads);
  const Deal deal(y, queue->threads);
#pragma omp parallel for schedule(static) num_threads(queue->threads)
  for (int64_t i = 0; i < deal.size(); ++i) {
    uint32_t* panel = scratch + words * omp_get_thread_num();
    SumTask(form, terms, update, y, deal.task(i), panel,
            {panel + panel_words, DType::kF32, y.rows, kPanelCols, kPanelCols});
  }
}

}  // namespace lorica::cpu
