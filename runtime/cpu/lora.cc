#include <cstdint>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"

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

// dx = the sum of the parts' dy W, plus dxa a where `adapters` is whole. A sum
// of several terms is taken in F32 and rounded once.
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

  void Finish() {
    if (sum_.data != dx_.data) Convert(queue_, sum_, 1.0f, dx_);
  }

 private:
  Queue* queue_;
  View dx_;
  View sum_;
  bool empty_ = true;
};

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
  const bool adapted = args.a.present();
  if (adapted) {
    Matmul(queue, {.form = MatmulForm::kTN,
                   .a = args.dxa,
                   .b = args.adapter_x,
                   .y = args.da,
                   .update = Update::kAdd});
  }
  const bool separate = args.adapter_dx.present();
  if (args.dx.present()) {
    const bool add_adapters = adapted && !separate;
    InputGradSum dx(queue, args.dx, args.parts.size + (add_adapters ? 1 : 0));
    for (const LinearPart& part : args.parts) dx.Add(part.y, part.weight);
    if (add_adapters) dx.Add(args.dxa, args.a);
    dx.Finish();
  }
  if (separate) {
    Matmul(queue, {.form = MatmulForm::kNN,
                   .a = args.dxa,
                   .b = args.a,
                   .y = args.adapter_dx});
  }
}

}  // namespace lorica::cpu
