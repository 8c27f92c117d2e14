#include "runtime/cuda/lora.h"

#include <cstddef>
#include <cstdint>

#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.h"

namespace lorica::cuda {
namespace {

// The columns of xa or dxa that belong to an adapted part.
View RanksOf(const View& xa, const LinearPart& part) {
  View ranks = xa;
  ranks.data =
      xa.As<char>() + static_cast<size_t>(part.first_rank) * SizeOf(xa.dtype);
  ranks.cols = part.b.cols;
  return ranks;
}

// dx = the sum of the terms added to it, in F32, rounded once at the end.
class InputGradSum {
 public:
  InputGradSum(Queue* queue, const View& dx, int64_t terms)
      : queue_(queue), dx_(dx), sum_(dx) {
    if (terms > 1 && dx.dtype != DType::kF32) {
      const size_t bytes = static_cast<size_t>(dx.elements()) * sizeof(float);
      sum_ = {ScratchFor(queue, ScratchUse::kSum, bytes), DType::kF32, dx.rows,
              dx.cols, dx.cols};
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
    if (shared) dx.Add(args.dxa, args.a);
    dx.Finish();
  }
  if (separate) {
    Matmul(queue, {.form = MatmulForm::kNN,
                   .a = args.dxa,
                   .b = args.a,
                   .y = args.adapter_dx});
  }
}

}  // namespace lorica::cuda
