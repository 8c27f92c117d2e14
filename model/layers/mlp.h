// The feed-forward half of a block.
#ifndef LORICA_MODEL_LAYERS_MLP_H_
#define LORICA_MODEL_LAYERS_MLP_H_

#include "model/layers/attention.h"
#include "model/layers/lora_linear.h"
#include "model/pass.h"
#include "runtime/ops.h"

namespace lorica {

struct MlpAdapters {
  LinearAdapter gate_up;
  LinearAdapter down;
  bool present() const { return gate_up.present() || down.present(); }
};

// h = norm(x);  s = silu(W_gate h) * (W_up h);  delta = W_down s
class Mlp {
 public:
  struct Saved {
    Tensor x;     // [T, H] the normalized sum.
    Tensor rstd;  // [T] absent where the rest is to be computed again.
    Tensor gate;  // [T, F]
    Tensor up;
    LoraLinear::Saved gate_up;
    LoraLinear::Saved down;
  };

  struct Weights {
    Tensor norm;  // [H] F32
    FrozenLinear gate_up;
    FrozenLinear down;
  };

  Mlp(Weights weights, const ModelPlan& plan, float norm_epsilon,
      Communicator* group);

  // As Attention::GradRoom.
  int64_t GradRoom(const MlpAdapters& adapters) const {
    return down_.GradRoom(adapters.down);
  }

  Stream Forward(const Stream& in, const MlpAdapters& adapters,
                 const Pass& pass, Recompute recompute, Saved* saved) const;

  // As Attention::Backward.
  void Backward(Saved saved, const MlpAdapters& adapters, const Pass& pass,
                ops::InputGrad input_grad, Tensor* dstream) const;

 private:
  // Everything before the gated product.
  Saved GateUp(const Stream& in, const MlpAdapters& adapters, const Pass& pass,
               KeepInput keep) const;

  Weights weights_;
  float norm_epsilon_;
  LoraLinear gate_up_;
  LoraLinear down_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_MLP_H_
