// The adapted linear layer as a series of products, for tables that multiply
// base and adapters apart: the same on every device but for who multiplies.
#ifndef LORICA_RUNTIME_LORA_PRODUCTS_H_
#define LORICA_RUNTIME_LORA_PRODUCTS_H_

#include <cstddef>
#include <cstdint>

#include "runtime/backend.h"

namespace lorica {

// When the adapter's term of a result is multiplied. Backward of F32 results is
// the same sum either way.
//
//   kLast   The frozen product is rounded, then read, added to and rounded
//           again; a sum that is rounded once is kept in F32.
//   kFirst  The adapter's product, the smaller, is rounded, and the frozen
//           product adds to it in F32 before it rounds.
enum class AdapterTerm : uint8_t { kFirst, kLast };

// `Products` has of its device, all static:
//
//   Queue                                    the device's own type
//   kAdapterTerm                             when it multiplies the adapter
//   Matmul(queue, args), Convert(queue, x, scale, y), Add(queue, x, y)
//   SumScratch(queue, count)                 count floats for a sum
//   AddLowRank(queue, base, u, v, y)         y = base + u v, rounded once;
//                                            false where it is not better than
//                                            a product, and then nothing is
//                                            done. Asked for with kLast.
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
      const bool adapted = part.b.present();
      const bool first = adapted && kAdapterFirst;
      if (first) AdapterOutput(queue, args.xa, part, Update::kAssign);
      Products::Matmul(queue,
                       {.form = MatmulForm::kNT,
                        .a = args.x,
                        .b = part.weight,
                        .y = part.y,
                        .update = first ? Update::kAdd : Update::kAssign});
      if (adapted && !first) AdapterOutput(queue, args.xa, part, Update::kAdd);
    }
  }

  static void Backward(Queue* queue, const LoraBackwardArgs& args) {
    if (args.a.present()) AdapterGrads(queue, args);
    if (args.dx.present()) InputGrad(queue, args);
    if (args.adapter_dx.present()) {
      AdapterInputGrad(queue, args, args.adapter_dx);
    }
  }

 private:
  static constexpr bool kAdapterFirst =
      Products::kAdapterTerm == AdapterTerm::kFirst;

  // The columns of xa or dxa that belong to an adapted part.
  static View RanksOf(const View& xa, const LinearPart& part) {
    View ranks = xa;
    ranks.data =
        xa.As<char>() + static_cast<size_t>(part.first_rank) * SizeOf(xa.dtype);
    ranks.cols = part.b.cols;
    return ranks;
  }

  // y = or += xa b' of one part.
  static void AdapterOutput(Queue* queue, const View& xa,
                            const LinearPart& part, Update update) {
    Products::Matmul(queue, {.form = MatmulForm::kNT,
                             .a = RanksOf(xa, part),
                             .b = part.b,
                             .y = part.y,
                             .update = update});
  }

  // dx = the sum of the parts' dy W, plus dxa a where the adapters share dx.
  static void InputGrad(Queue* queue, const LoraBackwardArgs& args) {
    const bool shared = args.a.present() && !args.adapter_dx.present();
    const bool first = shared && kAdapterFirst;
    const bool last = shared && !kAdapterFirst;
    if (first) AdapterInputGrad(queue, args, args.dx);
    InputGradSum dx(queue, args.dx, first ? Update::kAdd : Update::kAssign,
                    args.parts.size + (last ? 1 : 0));
    for (const LinearPart& part : args.parts) dx.Add(part.y, part.weight);
    if constexpr (!kAdapterFirst) {
      if (last) return dx.FinishWith(args.dxa, args.a);
    }
    dx.Finish();
  }

  static void AdapterInputGrad(Queue* queue, const LoraBackwardArgs& args,
                               const View& dx) {
    Products::Matmul(
        queue, {.form = MatmulForm::kNN, .a = args.dxa, .b = args.a, .y = dx});
  }

  // Assigns a sum of products to dx, or adds it. A sum of several terms is
  // taken in F32 and rounded once.
  class InputGradSum {
   public:
    InputGradSum(Queue* queue, const View& dx, Update update, int64_t terms)
        : queue_(queue), dx_(dx), update_(update), sum_(dx), next_(update) {
      if (terms > 1 && dx.dtype != DType::kF32) {
        sum_ = {Products::SumScratch(queue, dx.elements()), DType::kF32,
                dx.rows, dx.cols, dx.cols};
        next_ = Update::kAssign;
      }
    }

    // Adds a b.
    void Add(const View& a, const View& b) {
      Products::Matmul(queue_, {.form = MatmulForm::kNN,
                                .a = a,
                                .b = b,
                                .y = sum_,
                                .update = next_});
      next_ = Update::kAdd;
    }

    // Adds the last term u v, of low rank.
    void FinishWith(const View& u, const View& v) {
      if (Products::AddLowRank(queue_, sum_, u, v, dx_)) return;
      Add(u, v);
      Finish();
    }

    void Finish() {
      if (sum_.data == dx_.data) return;
      if (update_ == Update::kAdd) {
        Products::Add(queue_, sum_, dx_);
      } else {
        Products::Convert(queue_, sum_, 1.0f, dx_);
      }
    }

   private:
    Queue* queue_;
    View dx_;
    Update update_;
    View sum_;
    Update next_;  // Of the next term.
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
