#include <cstddef>
#include <cstdint>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"
#include "runtime/cpu/thin_products.h"

namespace lorica::cpu {
namespace {

View ColsOf(View v, int64_t first, int64_t count) {
  v.data = v.As<char>() + static_cast<size_t>(first) * SizeOf(v.dtype);
  v.cols = count;
  return v;
}

// The columns of xa or dxa that belong to an adapted part.
View RanksOf(const View& xa, const LinearPart& part) {
  return ColsOf(xa, part.first_rank, part.b.cols);
}

// dx = the sum of the parts' dy W, plus dxa a where the adapters share dx. A
// sum of several terms is taken in F32 and rounded once.
class InputGradSum {
 public:
  InputGradSum(Queue* queue, const View& dx, int64_t terms)
      : queue_(queue), dx_(dx), sum_(dx) {
    if (terms > 1 && dx.dtype != DType::kF32) {
      sum_ = {queue->ScratchFor<float>(ScratchUse::kSum, dx.elements()),
              DType::kF32, dx.rows, dx.cols, dx.cols};
    }
  }

  // Adds a b.
  void Add(const View& a, const View& b) {
    Matmul(queue_, {.form = MatmulForm::kNN,
                    .a = a,
                    .b = b,
                    .y = sum_,
                    .update = empty_ ? Update::kAssign : Update::kAdd});
    empty_ = false;
  }

  // Adds the last term u v, of low rank.
  void FinishWith(const View& u, const View& v) {
    if (dx_.dtype == DType::kBF16 && u.cols <= kMaxThin &&
        queue_->bf16_products == Bf16Products::kNative) {
      AddLowRank(queue_, sum_, u, v, dx_);
    } else {
      Add(u, v);
      Finish();
    }
  }

  void Finish() {
    if (sum_.data != dx_.data) Convert(queue_, sum_, 1.0f, dx_);
  }

 private:
  Queue* queue_;
  View dx_;
  View sum_;
  bool empty_ = true;
};

// da, db and dxa.
void AdapterGrads(Queue* queue, const LoraBackwardArgs& args) {
  for (const LinearPart& part : args.parts) {
    if (!part.b.present()) continue;
    Matmul(queue, {.form = MatmulForm::kNN,
                   .a = part.y,
                   .b = part.b,
                   .y = RanksOf(args.dxa, part)});
    Matmul(queue, {.form = MatmulForm::kTN,
                   .a = part.y,
                   .b = RanksOf(args.xa, part),
                   .y = part.db,
                   .scale = part.scale,
                   .update = Update::kAdd});
  }
  Matmul(queue, {.form = MatmulForm::kTN,
                 .a = args.dxa,
                 .b = args.adapter_x,
                 .y = args.da,
                 .update = Update::kAdd});
}

}  // namespace

void LoraForward(Queue* queue, const LoraForwardArgs& args) {
  if (args.a.present()) {
    Matmul(queue, {.form = MatmulForm::kNT,
                   .a = args.adapter_x,
                   .b = args.a,
                   .y = args.xa});
  }
  for (const LinearPart& part : args.parts) {
    Matmul(
        queue,
        {.form = MatmulForm::kNT, .a = args.x, .b = part.weight, .y = part.y});
    if (!part.b.present()) continue;
    Matmul(queue, {.form = MatmulForm::kNT,
                   .a = RanksOf(args.xa, part),
                   .b = part.b,
                   .y = part.y,
                   .update = Update::kAdd});
  }
}

void LoraBackward(Queue* queue, const LoraBackwardArgs& args) {
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
    Matmul(queue, {.form = MatmulForm::kNN,
                   .a = args.dxa,
                   .b = args.a,
                   .y = args.adapter_dx});
  }
}

}  // namespace lorica::cpu
