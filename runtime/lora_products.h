// The adapted linear layer as a series of products, for tables that multiply
// base and adapters apart: the same on every device but for who multiplies.
#ifndef LORICA_RUNTIME_LORA_PRODUCTS_H_
#define LORICA_RUNTIME_LORA_PRODUCTS_H_

#include <cstddef>
#include <cstdint>

#include "runtime/backend.h"

namespace lorica {

// `Products` has of its device, all static:
//
//   Queue                                    the device's own type
//   Matmul(queue, args), Convert(queue, x, scale, y)
//   SumScratch(queue, count)                 count floats for a sum
//   AddLowRank(queue, base, u, v, y)         y = base + u v, rounded once;
//                                            false where it is not better than
//                                            a product, and then nothing is
//                                            done
template <typename Products>
class LoraProducts {
 public:
  using Queue = typename Products::Queue;

  // See LoraForwardArgs and LoraBackwardArgs. The result of a base product is
  // read and written once more by its adapter.
  static void Forward(Queue* queue, const LoraForwardArgs& args) {
    if (args.a.present()) {
      Products::Matmul(queue, {.form = MatmulForm::kNT,
                               .a = args.adapter_x,
                               .b = args.a,
                               .y = args.xa});
    }
    for (const LinearPart& part : args.parts) {
      Products::Matmul(queue, {.form = MatmulForm::kNT,
                               .a = args.x,
                               .b = part.weight,
                               .y = part.y});
      if (!part.b.present()) continue;
      Products::Matmul(queue, {.form = MatmulForm::kNT,
                               .a = RanksOf(args.xa, part),
                               .b = part.b,
                               .y = part.y,
                               .update = Update::kAdd});
    }
  }

  static void Backward(Queue* queue, const LoraBackwardArgs& args) {
    const bool adapted = args.a.present();
    if (adapted) AdapterGrads(queue, args);
    const bool separate = args.adapter_dx.present();
    const bool shared = adapted && !separate;
    if (args.dx.present()) {
      InputGradSum dx(queue, args.dx, args.parts.size + (shared ? 1 : 0));
      for (const LinearPart& part : args.parts) dx.Add(part.y, part.weight);
      if (shared) {
        dx.FinishWith(args.dxa, args.a);
      } else {
        dx.Finish();
      }
    }
    if (separate) {
      Products::Matmul(queue, {.form = MatmulForm::kNN,
                               .a = args.dxa,
                               .b = args.a,
                               .y = args.adapter_dx});
    }
  }

 private:
  // The columns of xa or dxa that belong to an adapted part.
  static View RanksOf(const View& xa, const LinearPart& part) {
    View ranks = xa;
    ranks.data =
        xa.As<char>() + static_cast<size_t>(part.first_rank) * SizeOf(xa.dtype);
    ranks.cols = part.b.cols;
    return ranks;
  }

  // dx = the sum of the parts' dy W, plus dxa a where the adapters share dx. A
  // sum of several terms is taken in F32 and rounded once.
  class InputGradSum {
   public:
    InputGradSum(Queue* queue, const View& dx, int64_t terms)
        : queue_(queue), dx_(dx), sum_(dx) {
      if (terms > 1 && dx.dtype != DType::kF32) {
        sum_ = {Products::SumScratch(queue, dx.elements()), DType::kF32,
                dx.rows, dx.cols, dx.cols};
      }
    }

    // Adds a b.
    void Add(const View& a, const View& b) {
      Products::Matmul(queue_,
                       {.form = MatmulForm::kNN,
                        .a = a,
                        .b = b,
                        .y = sum_,
                        .update = empty_ ? Update::kAssign : Update::kAdd});
      empty_ = false;
    }

    // Adds the last term u v, of low rank.
    void FinishWith(const View& u, const View& v) {
      if (Products::AddLowRank(queue_, sum_, u, v, dx_)) return;
      Add(u, v);
      Finish();
    }

    void Finish() {
      if (sum_.data != dx_.data) Products::Convert(queue_, sum_, 1.0f, dx_);
    }

   private:
    Queue* queue_;
    View dx_;
    View sum_;
    bool empty_ = true;
  };

  // da, db and dxa.
  static void AdapterGrads(Queue* queue, const LoraBackwardArgs& args) {
    for (const LinearPart& part : args.parts) {
      if (!part.b.present()) continue;
      Products::Matmul(queue, {.form = MatmulForm::kNN,
                               .a = part.y,
                               .b = part.b,
                               .y = RanksOf(args.dxa, part)});
      Products::Matmul(queue, {.form = MatmulForm::kTN,
                               .a = part.y,
                               .b = RanksOf(args.xa, part),
                               .y = part.db,
                               .scale = part.scale,
                               .update = Update::kAdd});
    }
    Products::Matmul(queue, {.form = MatmulForm::kTN,
                             .a = args.dxa,
                             .b = args.adapter_x,
                             .y = args.da,
                             .update = Update::kAdd});
  }
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_LORA_PRODUCTS_H_
