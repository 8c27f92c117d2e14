// The attention half of a block.
#ifndef LORICA_MODEL_LAYERS_ATTENTION_H_
#define LORICA_MODEL_LAYERS_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "model/layers/lora_linear.h"
#include "model/layers/norm.h"
#include "model/pass.h"
#include "model/recompute.h"
#include "runtime/ops.h"

namespace lorica {

// Keys and values of the tokens so far, this rank's heads.
struct KvCache {
  Tensor k;  // [capacity, kv_heads * head_dim]
  Tensor v;
  int64_t tokens = 0;  // Filled rows.
};

// The residual stream between layers: its value is x + delta. The addition is
// left to the next norm, which reads both anyway.
struct Stream {
  Tensor x;
  Tensor delta;  // Absent at the model's start.
};

// What is adapted in one attention layer.
struct AttentionAdapters {
  LinearAdapter qkv;
  LinearAdapter o;
  bool present() const { return qkv.present() || o.present(); }
};

// h = norm(x);  q, k, v = W_q h, W_k h, W_v h, plus biases;  q, k rotated, if
// positions are;  delta = W_o softmax(q k' / sqrt(D)) v, plus a bias
class Attention {
 public:
  struct Saved {
    Tensor x;           // [T, H] the normalized sum.
    Norm::Stats stats;  // Absent where the rest is to be computed again.
    Tensor q;           // [T, heads * D], rotated.
    Tensor k;           // [T, kv_heads * D]
    Tensor v;
    ops::AttentionResult attention;
    LoraLinear::Saved qkv;
    LoraLinear::Saved o;
  };

  struct Weights {
    Norm norm;
    FrozenLinear qkv;  // In three parts, or one: their rows in this order.
    FrozenLinear o;
  };

  // `rope` is null where positions do not turn; it and `group` must outlive the
  // layer.
  Attention(Weights weights, const ModelPlan& plan, int64_t head_dim,
            const ops::RopeTable* rope, Communicator* group);

  // Columns of room that `dstream` should have beside it in Backward.
  int64_t GradRoom(const AttentionAdapters& adapters) const {
    return o_.GradRoom(adapters.o);
  }

  // The rows that go on after the heads: all, or the pass's selected ones.
  enum class Rows : uint8_t { kAll, kSelected };

  // `cache`: attend to its rows as well and append to it; may be null.
  // `saved` may be null: nothing is kept.
  Stream Forward(const Stream& in, const AttentionAdapters& adapters,
                 const Pass& pass, Rows rows, Recompute recompute,
                 KvCache* cache, Saved* saved) const;

  // `dstream` is the gradient of the stream on the way out and, on return, on
  // the way in. With kNone it is not carried below this layer.
  void Backward(Saved saved, const AttentionAdapters& adapters,
                const Pass& pass, ops::InputGrad input_grad,
                Tensor* dstream) const;

 private:
  // Everything before the output product.
  Saved Heads(const Stream& in, const AttentionAdapters& adapters,
              const Pass& pass, KeepInput keep, KvCache* cache) const;
  void Rotate(const Pass& pass, Direction direction, Tensor* q,
              Tensor* k) const;
  // The gradients of qkv_'s outputs, as many as there are.
  std::vector<Tensor> HeadGrads(const Tensor& dout, const Saved& saved,
                                const Pass& pass, int64_t room) const;

  Norm norm_;
  ops::AttentionShape shape_;
  const ops::RopeTable* rope_;
  Range q_cols_;  // Of one output of all three.
  Range k_cols_;
  Range v_cols_;
  LoraLinear qkv_;
  LoraLinear o_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_ATTENTION_H_
