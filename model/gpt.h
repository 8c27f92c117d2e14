// A GPT-style model with frozen weights, this rank's slices of them.
#ifndef LORICA_MODEL_GPT_H_
#define LORICA_MODEL_GPT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "model/adapter.h"
#include "model/gpt_config.h"
#include "model/layers/attention.h"
#include "model/layers/loss.h"
#include "model/layers/mlp.h"
#include "model/params.h"
#include "model/pass.h"
#include "model/plans.h"
#include "parallel/communicator.h"

namespace lorica {

// Yields one frozen parameter's slice as a dense tensor on the device. Norms
// are F32; the type of the others is what the model computes in.
using LoadParam =
    std::function<Tensor(const ParamSpec& spec, const Slice& slice)>;

// Called in the backward pass, between layers. Makes no tensors: the pass's
// activations would make room for them.
using LayerDone = std::function<void(int64_t layer)>;

class Gpt {
 public:
  // Loads every frozen parameter. `config` is valid; `group` holds the tensor
  // ranks and must outlive the model. On devices of LinearLayout::kBordered the
  // compute copy of `resident`, if given, moves into the border of the weights;
  // other adapters are multiplied as well, in more products.
  Gpt(const GptConfig& config, const ModelSplit& split, const ModelPlan& plan,
      Communicator* group, const LoadParam& load, Adapter* resident = nullptr);
  Gpt(const Gpt&) = delete;
  Gpt& operator=(const Gpt&) = delete;

  const GptConfig& config() const { return config_; }
  // The ranks that hold the other slices.
  Communicator& group() const { return *group_; }
  // The rows that a pass for this model may select.
  Selection selection() const {
    return plan_.row.output.to == Layout::kSharded ? Selection::kAll
                                                   : Selection::kTargets;
  }

  // The loss of each of the pass's rows, to be read when the host has time.
  // Adds grad_scale (times the pass's, if it has one) times the gradient of
  // their sum to the adapter's gradients; `done`, if given, is told of each
  // layer once its gradients are complete, from the last to the lowest with an
  // adapter.
  RowLosses Train(const Pass& pass, Recompute recompute, float grad_scale,
                  const Adapter& adapter,
                  const LayerDone& done = nullptr) const;
  // The same, with the losses in memory of the caller's: `losses` is of the
  // pass's targets. What this takes of the device by itself is free again when
  // it returns.
  void Train(const Pass& pass, Recompute recompute, float grad_scale,
             const Adapter& adapter, const LayerDone& done,
             RowLosses* losses) const;
  // The same as the first, read, with the backward pass going on to the
  // embedding, whether an adapter needs it or not: `dx` receives grad_scale
  // times the gradient for the embedded tokens, [T, H], or this rank's rows of
  // it where the plan splits tokens. `adapter` may be null: the frozen model.
  std::vector<double> TrainToEmbedding(const Pass& pass, Recompute recompute,
                                       float grad_scale, const Adapter* adapter,
                                       Tensor* dx) const;
  // The losses alone. `adapter` may be null: the base model.
  std::vector<double> Evaluate(const Pass& pass, const Adapter* adapter) const;
  // Appends the pass's tokens to the caches, one a layer, and returns the
  // logits [C, V] F32 of the selected rows.
  Tensor Decode(const Pass& pass, const Adapter* adapter,
                std::vector<KvCache>* caches) const;
  // Empty caches for `tokens` tokens.
  std::vector<KvCache> MakeCaches(int64_t tokens) const;

 private:
  struct Block {
    Attention attention;
    Mlp mlp;
  };
  struct Saved {
    Attention::Saved attention;
    Mlp::Saved mlp;
  };
  // What a backward pass needs, and how far down it goes.
  struct Record {
    int64_t lowest_layer = 0;
    ops::InputGrad below = ops::InputGrad::kNone;  // Of that layer's input.
    LayerDone done = nullptr;
    std::vector<Saved> layers;
  };

  // This rank's rows of a table of learned positions.
  struct PositionRows {
    Tensor weight;
    int64_t first = 0;
  };

  void MakeRopeTable();
  // Columns of room beside the gradient of the residual stream.
  int64_t GradRoom(const Adapter* adapter) const;
  Stream Embed(const Pass& pass) const;
  // Through all blocks; `record` says what to keep and receives it, or is null.
  Stream Blocks(Stream stream, const Pass& pass, const Adapter* adapter,
                Recompute recompute, std::vector<KvCache>* caches,
                Record* record) const;
  // Returns the gradient for the lowest layer's input where it is due.
  Tensor BlocksBackward(Record record, const Pass& pass, const Adapter* adapter,
                        Tensor dstream) const;
  // Fills in `losses` and returns what BlocksBackward does.
  Tensor ForwardAndBackward(const Pass& pass, Recompute recompute,
                            float grad_scale, const Adapter* adapter,
                            Record record, RowLosses* losses) const;

  GptConfig config_;
  ModelPlan plan_;
  Communicator* group_;
  Device* device_ = nullptr;
  DType compute_ = DType::kF32;
  ops::HeadSlice embedding_;
  PositionRows positions_;   // Absent where positions turn heads,
  ops::RopeTable rope_;      // and this where they do not.
  int64_t kv_features_ = 0;  // Of this rank.
  std::vector<Block> blocks_;
  std::unique_ptr<LossHead> head_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_GPT_H_
