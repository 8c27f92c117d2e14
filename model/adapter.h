// One adapter: its factors, gradients and moments in flat arrays, and what the
// layers see of them.
#ifndef LORICA_MODEL_ADAPTER_H_
#define LORICA_MODEL_ADAPTER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "model/layers/attention.h"
#include "model/layers/mlp.h"
#include "model/layers/weight_stack.h"
#include "model/lora_config.h"
#include "parallel/shard_spec.h"
#include "runtime/ops.h"
#include "runtime/tensor.h"

namespace lorica {

// A factor A [R, I] or B [O, R] of one module, or a section of such a B: each
// of a fused layer's is a factor by itself, with the shape of the whole.
struct Factor {
  enum class Kind : uint8_t { kA, kB };
  Kind kind;
  std::string module;  // "model.layers.3.self_attn.q_proj"
  int64_t layer;
  LinearKind first;  // Of the modules that share its input.
  size_t part;       // Among them.
  Shape shape;       // Of the whole factor.
  ShardSpec shard;
  Slice slice;  // This rank's.
  // Of the slice, in the rows of B that this rank has of the module.
  int64_t first_row = 0;
  int64_t offset = 0;  // Of the slice, row-major and dense, in the flat arrays.
  int64_t elements = 0;
  float scale = 1.0f;  // Of the compute copy: alpha / R for B.
};

// The flat arrays are F32: values (masters), gradients, and Adam's moments;
// a copy of the values in the compute type, B times its scale, is what products
// read: in an array of its own or in the border of the frozen weights. First
// come the replicated factors, whose gradients are terms of a sum over the
// tensor group, then the split ones. All of it is this rank's share.
class Adapter {
 public:
  // `modules` in the order of ResolveTargets. `rank`: in the tensor group.
  Adapter(Device* device, DType compute, int64_t num_layers,
          std::vector<LoraModule> modules, float dropout, int rank);

  // A uniform in [-1/sqrt(I), 1/sqrt(I)) (PEFT's Kaiming with a = sqrt 5), B
  // zero: each element a function of the seed, the module's name and its index
  // in the whole factor.
  void Initialize(uint64_t seed);
  // Overwrites one factor's slice of the values: row-major, this rank's slice.
  void SetValue(const Factor& factor, absl::Span<const float> values);
  std::vector<float> GetValue(const Factor& factor) const;
  // Brings the compute copy up to the values.
  void Refresh();
  // The compute copy of a layer's factors lies in `stack` from now on: of the
  // modules from `first` on that share an input, all of whose ranks it was made
  // for. No other adapter may lie there.
  void MoveInto(int64_t layer, LinearKind first, const WeightStack& stack);
  void ZeroGrad();

  absl::Span<const Factor> factors() const { return factors_; }
  absl::Span<const LoraModule> modules() const { return modules_; }
  float dropout() const { return dropout_; }
  int64_t elements() const { return values_.elements(); }
  // The leading part of the flat arrays that holds the replicated factors.
  int64_t replicated_elements() const { return replicated_elements_; }
  // Parameters of the whole adapter, over all ranks.
  int64_t total_parameters() const;
  // The lowest layer with an adapter.
  int64_t lowest_layer() const { return lowest_layer_; }

  Tensor* values() { return &values_; }
  Tensor* grads() { return &grads_; }
  Tensor* first_moments() { return &m_; }
  Tensor* second_moments() { return &v_; }

  // Of the modules from `first` on that share an input: kQ, kO, kGate or kDown.
  const LinearAdapter& linear(int64_t layer, LinearKind first) const;
  const AttentionAdapters& attention(int64_t layer) const {
    return attention_[static_cast<size_t>(layer)];
  }
  const MlpAdapters& mlp(int64_t layer) const {
    return mlp_[static_cast<size_t>(layer)];
  }

 private:
  // The modules that share an input, as one linear layer with parts.
  struct Group {
    int64_t layer;
    LinearKind first;  // kQ, kO, kGate or kDown.
    int num_kinds;
    std::vector<const LoraModule*> parts;  // Null where not adapted.
    int64_t a_offset = 0;
    std::vector<int64_t> b_offsets;
  };
  std::vector<Group> Groups() const;
  void Place(std::vector<Group>* groups, int rank);
  void Connect(const std::vector<Group>& groups, const Tensor& compute,
               int rank);
  LinearAdapter* Find(int64_t layer, LinearKind first);
  // A factor's compute copy.
  Tensor CopyOf(const Factor& factor) const;

  std::vector<LoraModule> modules_;
  float dropout_;
  int64_t lowest_layer_;
  std::vector<Factor> factors_;
  int64_t replicated_elements_ = 0;
  Tensor values_;
  Tensor grads_;
  Tensor m_;
  Tensor v_;
  std::vector<AttentionAdapters> attention_;
  std::vector<MlpAdapters> mlp_;
  ops::PieceTable copies_;  // Where they lie; empty until they are wanted.
};

}  // namespace lorica

#endif  // LORICA_MODEL_ADAPTER_H_
