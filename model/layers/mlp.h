// The feed-forward half of a block.
#ifndef LORICA_MODEL_LAYERS_MLP_H_
#define LORICA_MODEL_LAYERS_MLP_H_

#include <vector>

#include "model/gpt_config.h"
#include "model/layers/attention.h"
#include "model/layers/lora_linear.h"
#include "model/layers/norm.h"
#include "model/pass.h"
#include "runtime/ops.h"

namespace lorica {

struct MlpAdapters {
  LinearAdapter up;
  LinearAdapter down;
  bool present() const { return up.present() || down.present(); }
};

// h = norm(x);  delta = W_down s, plus a bias;  of Activation::kSwiglu
// s = silu(W_gate h) * (W_up h), of kGelu s = gelu(W_up h + bias)
class Mlp {
 public:
  struct Saved {
    Tensor x;                 // [T, H] the normalized sum.
    Norm::Stats stats;        // Absent where the rest is to be computed again.
    std::vector<Tensor> ups;  // [T, F] each: gate and up, or up alone.
    LoraLinear::Saved up;
    LoraLinear::Saved down;
  };

  struct Weights {
    Norm norm;
    FrozenLinear up;  // Gate and up, or up alone.
    FrozenLinear down;
  };

  Mlp(Weights weights, Activation activation, const ModelPlan& plan,
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
  // Everything before the activation.
  Saved Ups(const Stream& in, const MlpAdapters& adapters, const Pass& pass,
            KeepInput keep) const;

  Norm norm_;
  Activation activation_;
  LoraLinear up_;
  LoraLinear down_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_MLP_H_
