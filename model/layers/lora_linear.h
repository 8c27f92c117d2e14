// A frozen linear layer with adapters on its parts.
//
// In every layer of this folder activation gradients are assigned and
// parameter gradients added.
#ifndef LORICA_MODEL_LAYERS_LORA_LINEAR_H_
#define LORICA_MODEL_LAYERS_LORA_LINEAR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/pass.h"
#include "model/plans.h"
#include "parallel/communicator.h"
#include "runtime/ops.h"
#include "runtime/tensor.h"

namespace lorica {

// What one adapter has on one linear layer: views of the adapter's flat
// arrays, this rank's slices. The A factors of all parts are stacked so that
// one product serves them; parts that share an input share its dropout mask.
struct LinearAdapter {
  struct Part {
    Tensor b;   // [O, R] compute type, times scale; absent if not adapted.
    Tensor db;  // [O, R] F32, without the spare ranks of a border.
    int64_t first_rank = 0;
    float scale = 0.0f;
  };
  Tensor a;   // [S, I] compute type; absent if no part is adapted.
  Tensor da;  // [S, I] F32, without the spare ranks.
  std::vector<Part> parts;
  // S where the factors lie in the border of the frozen weights, else zero. S
  // then counts the border's spare ranks, which are the last part's, see
  // LoraForwardArgs.
  int64_t border = 0;

  float dropout = 0.0f;
  std::string name;         // Names the dropout mask's random field.
  int64_t inputs = 0;       // I of the whole layer.
  int64_t first_input = 0;  // Of this rank's slice.

  bool present() const { return a.present(); }
};

// Frozen parts that share an input.
struct FrozenLinear {
  std::vector<Tensor> weights;  // [O_p, I]
  std::vector<Tensor> biases;   // [O_p] of each part, or empty.
};

// Whether Forward keeps the input for Backward or the caller will present it
// again, recomputed.
enum class KeepInput : uint8_t { kYes, kNo };

// y_p = x W_p' + bias_p + scale_p (x A_p') B_p' for each part p.
//
//   x [T, I]   W_p [O_p, I]   A_p [R_p, I]   B_p [O_p, R_p]   y_p [T, O_p]
//
// T tokens, I inputs, O outputs, R ranks. I and O are this rank's share under
// the plan; the code is the same for every plan.
class LoraLinear {
 public:
  struct Saved {
    Tensor x;   // [T, I], where an adapter needs it and it was kept.
    Tensor xa;  // [T, S]
  };

  // Where the plan sums outputs over ranks only one rank has biases. `group`
  // must outlive the layer.
  LoraLinear(const LinearPlan& plan, FrozenLinear frozen, Communicator* group);

  size_t parts() const { return frozen_.weights.size(); }

  // Columns of room beside x, and beside the last dy, in which xa and dxa are
  // best put: that of a border's adapter, where the rows need not travel.
  int64_t InputRoom(const LinearAdapter& adapter) const;
  int64_t GradRoom(const LinearAdapter& adapter) const;

  // `saved` may be null: nothing is kept.
  std::vector<Tensor> Forward(const Tensor& x, const LinearAdapter& adapter,
                              const Pass& pass, KeepInput keep,
                              Saved* saved) const;

  // Returns dx, absent with kNone, and adds to the adapter's da and db.
  // `x` is Forward's input where `saved` does not hold it.
  Tensor Backward(absl::Span<const Tensor> dy, const Tensor& x,
                  const Saved& saved, const LinearAdapter& adapter,
                  const Pass& pass, ops::InputGrad input_grad) const;

 private:
  std::vector<ops::LinearPart> Parts(const LinearAdapter& adapter) const;

  LinearPlan plan_;
  FrozenLinear frozen_;
  Communicator* group_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_LORA_LINEAR_H_
