// The adapted linear layer as a series of products, the same on every device
// but for who multiplies.
#ifndef LORICA_RUNTIME_LORA_PRODUCTS_H_
#define LORICA_RUNTIME_LORA_PRODUCTS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/backend.h"
#include "runtime/check.h"

namespace lorica {

// a b' with b [N, K], or a b with b [K, N]; a [T, K].
struct ProductTerm {
  View a;
  View b;
};

// Parts of a fused weight: q, k and v at most.
inline constexpr int64_t kMaxLinearParts = 4;

// y [T, N] = the products of all terms, of form NT or NN.
struct ProductSum {
  MatmulForm form;
  std::array<ProductTerm, kMaxLinearParts> frozen;
  int64_t num_frozen = 0;
  ProductTerm adapter;  // Of low rank; a is absent where there is none.
  View bias;            // [N], or absent; of one frozen product alone.
  View y;
};

// For tables whose products have one term: the adapter's product, the smaller,
// is rounded first, and the frozen product adds to it in F32 before it rounds.
// Several frozen products are summed in F32 and rounded once.
//
// `Products` has Matmul(queue, args), Convert(queue, x, scale, y),
// Add(queue, x, y) and SumScratch(queue, count), count floats.
template <typename Products, typename Queue>
void SumApart(Queue* queue, const ProductSum& sum) {
  const bool adapted = sum.adapter.a.present();
  if (adapted) {
    Products::Matmul(
        queue,
        {.form = sum.form, .a = sum.adapter.a, .b = sum.adapter.b, .y = sum.y});
  }
  View to = sum.y;
  Update update = adapted ? Update::kAdd : Update::kAssign;
  const bool wide = sum.num_frozen > 1 && sum.y.dtype != DType::kF32;
  CHECK(!sum.bias.present() || sum.num_frozen == 1);
  if (wide) {
    to = {Products::SumScratch(queue, sum.y.elements()), DType::kF32,
          sum.y.rows, sum.y.cols, sum.y.cols};
    update = Update::kAssign;
  }
  for (int64_t i = 0; i < sum.num_frozen; ++i) {
    const ProductTerm& term = sum.frozen[static_cast<size_t>(i)];
    Products::Matmul(queue, {.form = sum.form,
                             .a = term.a,
                             .b = term.b,
                             .y = to,
                             .bias = sum.bias,
                             .update = update});
    update = Update::kAdd;
  }
  if (!wide) return;
  if (adapted) {
    Products::Add(queue, to, sum.y);
  } else {
    Products::Convert(queue, to, 1.0f, sum.y);
  }
}

// `Products` has, all static: its device's Queue, Matmul(queue, args) and
// Sum(queue, const ProductSum&).
template <typename Products>
class LoraProducts {
 public:
  using Queue = typename Products::Queue;

  // See LoraForwardArgs and LoraBackwardArgs.
  static void Forward(Queue* queue, const LoraForwardArgs& args) {
    if (args.a.present()) {
      Products::Matmul(queue, {.form = MatmulForm::kNT,
                               .a = args.adapter_x,
                               .b = args.a,
                               .y = args.xa});
    }
    for (const LinearPart& part : args.parts) {
      ProductSum sum = {
          .form = MatmulForm::kNT, .bias = part.bias, .y = part.y};
      sum.frozen[0] = {args.x, part.weight};
      sum.num_frozen = 1;
      if (part.b.present()) {
        sum.adapter = {args.xa.Cols(RanksOf(part, part.b)), part.b};
      }
      Products::Sum(queue, sum);
    }
  }

  static void Backward(Queue* queue, const LoraBackwardArgs& args) {
    if (args.a.present()) AdapterGrads(queue, args);
    const ProductTerm adapter = {args.dxa, args.a};
    const bool separate = args.adapter_dx.present();
    if (args.dx.present()) {
      CHECK_LE(args.parts.size, kMaxLinearParts);
      ProductSum sum = {.form = MatmulForm::kNN, .y = args.dx};
      for (const LinearPart& part : args.parts) {
        sum.frozen[static_cast<size_t>(sum.num_frozen++)] = {part.y,
                                                             part.weight};
      }
      if (args.a.present() && !separate) sum.adapter = adapter;
      Products::Sum(queue, sum);
    }
    if (separate) {
      Products::Matmul(queue, {.form = MatmulForm::kNN,
                               .a = adapter.a,
                               .b = adapter.b,
                               .y = args.adapter_dx});
    }
  }

 private:
  // The columns of xa or dxa for a factor of a part, b or db.
  static Range RanksOf(const LinearPart& part, const View& factor) {
    return {part.first_rank, part.first_rank + factor.cols};
  }

  // da, db and dxa. Spare ranks are columns of b, so that dxa has all of its
  // own written, but have no gradient.
  static void AdapterGrads(Queue* queue, const LoraBackwardArgs& args) {
    for (const LinearPart& part : args.parts) {
      if (!part.b.present()) continue;
      Products::Matmul(queue, {.form = MatmulForm::kNN,
                               .a = part.y,
                               .b = part.b,
                               .y = args.dxa.Cols(RanksOf(part, part.b))});
      Products::Matmul(queue, {.form = MatmulForm::kTN,
                               .a = part.y,
                               .b = args.xa.Cols(RanksOf(part, part.db)),
                               .y = part.db,
                               .scale = part.scale,
                               .update = Update::kAdd});
    }
    Products::Matmul(queue, {.form = MatmulForm::kTN,
                             .a = args.dxa.Cols({0, args.da.rows}),
                             .b = args.adapter_x,
                             .y = args.da,
                             .update = Update::kAdd});
  }
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_LORA_PRODUCTS_H_
