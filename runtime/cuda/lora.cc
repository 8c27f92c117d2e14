#include "runtime/cuda/lora.h"

#include <cstddef>
#include <cstdint>
#include <optional>

#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.h"
#include "runtime/lora_products.h"

namespace lorica::cuda {
namespace {

// Where `right` begins where the rows of `left` end, makes one matrix of them.
bool JoinCols(View* left, const View& right) {
  if (right.data != left->At(0, left->cols) || right.rows != left->rows ||
      right.row_stride != left->row_stride) {
    return false;
  }
  left->cols += right.cols;
  return true;
}

// The same of `below`, whose rows follow.
bool JoinRows(View* above, const View& below) {
  if (below.data != above->At(above->rows, 0) || below.cols != above->cols ||
      below.row_stride != above->row_stride) {
    return false;
  }
  above->rows += below.rows;
  return true;
}

// The same of biases: both absent, or one behind the other.
bool JoinBias(View* left, const View& right) {
  if (!left->present() || !right.present()) {
    return left->present() == right.present();
  }
  if (right.data != left->At(0, left->cols)) return false;
  left->cols += right.cols;
  return true;
}

// a b + c d = [a c] [b; d]: lets `term` grow by the next one of its sum, where
// their operands lie side by side.
bool Grow(MatmulForm form, const ProductTerm& next, ProductTerm* term) {
  ProductTerm grown = *term;
  if (!JoinCols(&grown.a, next.a)) return false;
  if (form == MatmulForm::kNT ? !JoinCols(&grown.b, next.b)
                              : !JoinRows(&grown.b, next.b)) {
    return false;
  }
  *term = grown;
  return true;
}

// The same sum in as few terms as its operands' places allow.
ProductSum Joined(ProductSum sum) {
  size_t last = 0;
  for (size_t i = 1; i < static_cast<size_t>(sum.num_frozen); ++i) {
    if (!Grow(sum.form, sum.frozen[i], &sum.frozen[last])) {
      sum.frozen[++last] = sum.frozen[i];
    }
  }
  sum.num_frozen = static_cast<int64_t>(last) + 1;
  if (sum.adapter.a.present() &&
      Grow(sum.form, sum.adapter, &sum.frozen[last])) {
    sum.adapter = {};
  }
  return sum;
}

// All parts as one, b with the zeros between theirs. Absent where they lie
// apart, or an adapter elsewhere than in the weights' border.
std::optional<LinearPart> WholeOf(const LoraForwardArgs& args) {
  LinearPart whole = args.parts[0];
  for (int64_t i = 1; i < args.parts.size; ++i) {
    const LinearPart& part = args.parts[i];
    if (!JoinRows(&whole.weight, part.weight) || !JoinCols(&whole.y, part.y) ||
        !JoinBias(&whole.bias, part.bias)) {
      return std::nullopt;
    }
  }
  whole.b = {};
  whole.first_rank = 0;
  if (!args.a.present()) return whole;
  whole.b = whole.weight;
  whole.b.data = whole.weight.At(0, whole.weight.cols);
  whole.b.cols = args.a.rows;
  for (const LinearPart& part : args.parts) {
    if (!part.b.present()) continue;
    const int64_t col = part.weight.cols + part.first_rank;
    if (part.b.data != part.weight.At(0, col) ||
        part.b.row_stride != part.weight.row_stride) {
      return std::nullopt;
    }
  }
  return whole;
}

struct Products {
  using Queue = lorica::Queue;

  static void Matmul(Queue* queue, const MatmulArgs& args) {
    cuda::Matmul(queue, args);
  }
  static void Convert(Queue* queue, const View& x, float scale, const View& y) {
    cuda::Convert(queue, x, scale, y);
  }
  static void Add(Queue* queue, const View& x, const View& y) {
    cuda::Add(queue, x, y);
  }
  static void* SumScratch(Queue* queue, int64_t count) {
    return ScratchFor(queue, ScratchUse::kSum,
                      static_cast<size_t>(count) * sizeof(float));
  }
  static void Sum(Queue* queue, const ProductSum& sum) {
    SumApart<Products>(queue, Joined(sum));
  }
};

}  // namespace

void LoraForward(Queue* queue, const LoraForwardArgs& args) {
  LoraForwardArgs joined = args;
  const std::optional<LinearPart> whole = WholeOf(args);
  if (whole.has_value()) joined.parts = {&*whole, 1};
  LoraProducts<Products>::Forward(queue, joined);
}

void LoraBackward(Queue* queue, const LoraBackwardArgs& args) {
  LoraProducts<Products>::Backward(queue, args);
}

}  // namespace lorica::cuda
