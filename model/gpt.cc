#include "model/gpt.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "model/layers/weight_stack.h"
#include "runtime/check.h"
#include "runtime/trace.h"

namespace lorica {
namespace {

// What a null adapter means to the layers.
const AttentionAdapters kNoAttentionAdapters;
const MlpAdapters kNoMlpAdapters;

const AttentionAdapters& AttentionOf(const Adapter* adapter, int64_t layer) {
  return adapter == nullptr ? kNoAttentionAdapters : adapter->attention(layer);
}

const MlpAdapters& MlpOf(const Adapter* adapter, int64_t layer) {
  return adapter == nullptr ? kNoMlpAdapters : adapter->mlp(layer);
}

// Takes the frozen parameters, one after another.
class Loader {
 public:
  Loader(std::vector<ParamSpec> params, int rank, const LoadParam& load)
      : params_(std::move(params)), rank_(rank), load_(load) {}

  bool done() const { return next_ == params_.size(); }
  Tensor Take() {
    const ParamSpec& spec = params_[next_++];
    return load_(spec, SliceOf(spec.shard, spec.shape, rank_));
  }
  // The linear layers from `first` on that share an input, as the device wants
  // them to lie.
  FrozenLinear TakeLinears(const Tensor& like, int64_t layer, LinearKind first,
                           size_t count, Adapter* resident);

 private:
  bool BiasIsNext() const {
    return !done() && absl::EndsWith(params_[next_].name, ".bias");
  }

  std::vector<ParamSpec> params_;
  int rank_;
  const LoadParam& load_;
  size_t next_ = 0;
};

FrozenLinear Loader::TakeLinears(const Tensor& like, int64_t layer,
                                 LinearKind first, size_t count,
                                 Adapter* resident) {
  FrozenLinear linear;
  Device* device = like.device();
  if (device->backend().linear_layout == LinearLayout::kApart) {
    for (size_t i = 0; i < count; ++i) {
      linear.weights.push_back(Take());
      if (BiasIsNext()) linear.biases.push_back(Take());
    }
    return linear;
  }
  std::vector<int64_t> outputs;
  int64_t inputs = 0;
  for (size_t i = next_; outputs.size() < count; ++i) {
    if (params_[i].shape.rank() == 1) continue;  // A bias.
    const Slice slice = SliceOf(params_[i].shard, params_[i].shape, rank_);
    outputs.push_back(slice.rows.size());
    inputs = slice.cols.size();
  }
  const bool adapted =
      resident != nullptr && resident->linear(layer, first).present();
  const WeightStack stack(
      device, like.dtype(), outputs, inputs,
      adapted ? resident->linear(layer, first).a.rows() : int64_t{0});
  const Shape all = {
      std::accumulate(outputs.begin(), outputs.end(), int64_t{0})};
  Tensor biases;  // One behind the other, if there are any.
  Range place = {0, 0};
  for (size_t i = 0; i < count; ++i) {
    linear.weights.push_back(stack.weight(i));
    ops::ConvertInto(Take(), 1.0f, &linear.weights.back());
    place = {place.end, place.end + outputs[i]};
    if (!BiasIsNext()) continue;
    if (!biases.present()) biases = Tensor::Empty(device, all, like.dtype());
    linear.biases.push_back(biases.Cols(place));
    ops::ConvertInto(Take(), 1.0f, &linear.biases.back());
  }
  if (adapted) resident->MoveInto(layer, first, stack);
  return linear;
}

}  // namespace

Gpt::Gpt(const GptConfig& config, const ModelSplit& split,
         const ModelPlan& plan, Communicator* group, const LoadParam& load,
         Adapter* resident)
    : config_(config), plan_(plan), group_(group) {
  const int rank = group_->rank();
  Loader loader(FrozenParams(config_, split), rank, load);
  embedding_ = {.weight = loader.Take(),
                .first_vocab = split.vocab[static_cast<size_t>(rank)].begin};
  device_ = embedding_.weight.device();
  compute_ = embedding_.weight.dtype();
  kv_features_ = split.kv_heads[static_cast<size_t>(rank)].size();
  MakeRopeTable();
  blocks_.reserve(static_cast<size_t>(config_.num_layers));
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const Tensor attention_norm = loader.Take();
    const Tensor mlp_norm = loader.Take();
    const auto take = [&](LinearKind first, size_t count) {
      return loader.TakeLinears(embedding_.weight, layer, first, count,
                                resident);
    };
    const FrozenLinear qkv = take(kQ, 3);
    const FrozenLinear o = take(kO, 1);
    const FrozenLinear gate_up = take(kGate, 2);
    const FrozenLinear down = take(kDown, 1);
    blocks_.push_back(
        {Attention({.norm = attention_norm, .qkv = qkv, .o = o}, plan_,
                   config_.norm_epsilon, config_.head_dim, &rope_, group_),
         Mlp({.norm = mlp_norm, .gate_up = gate_up, .down = down}, plan_,
             config_.norm_epsilon, group_)});
  }
  const Tensor final_norm = loader.Take();
  ops::HeadSlice head = embedding_;
  if (!config_.tied_head) head.weight = loader.Take();
  CHECK(loader.done());
  head_ = std::make_unique<LossHead>(final_norm, config_.norm_epsilon, head,
                                     plan_.column, group_);
}

// Angles in double, rounded once; see RopeConfig.
void Gpt::MakeRopeTable() {
  const int64_t half = config_.head_dim / 2;
  const Shape shape = {config_.max_positions, half};
  std::vector<float> cos(static_cast<size_t>(shape.elements()));
  std::vector<float> sin(cos.size());
  for (size_t i = 0; i < cos.size(); ++i) {
    const size_t position = i / static_cast<size_t>(half);
    const size_t frequency = i % static_cast<size_t>(half);
    const double angle =
        static_cast<double>(position) * config_.rope.inv_freq[frequency];
    cos[i] =
        static_cast<float>(std::cos(angle)) * config_.rope.attention_scaling;
    sin[i] =
        static_cast<float>(std::sin(angle)) * config_.rope.attention_scaling;
  }
  rope_.cos = Tensor::FromHost<float>(device_, shape, cos);
  rope_.sin = Tensor::FromHost<float>(device_, shape, sin);
}

Stream Gpt::Embed(const Pass& pass) const {
  const Span span(SpanKind::kLayer, "embedding", "forward");
  Tensor x =
      ops::GatherRows(embedding_.weight, pass.ids, embedding_.first_vocab);
  return {.x = Redistribute(std::move(x), plan_.row.output, pass.tokens,
                            *group_, Purpose::kActivation)};
}

Stream Gpt::Blocks(Stream stream, const Pass& pass, const Adapter* adapter,
                   Recompute recompute, std::vector<KvCache>* caches,
                   Record* record) const {
  if (record != nullptr) {
    record->layers.resize(static_cast<size_t>(config_.num_layers));
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const size_t i = static_cast<size_t>(layer);
    // Below the lowest layer of the backward pass nothing is kept. After the
    // last attention only rows with a target go on.
    Saved* keep = record != nullptr && layer >= record->lowest_layer
                      ? &record->layers[i]
                      : nullptr;
    const bool last = layer + 1 == config_.num_layers;
    const Attention::Rows rows = last && pass.selected.present()
                                     ? Attention::Rows::kSelected
                                     : Attention::Rows::kAll;
    stream = blocks_[i].attention.Forward(
        stream, AttentionOf(adapter, layer), pass, rows, recompute,
        caches != nullptr ? &(*caches)[i] : nullptr,
        keep != nullptr ? &keep->attention : nullptr);
    stream =
        blocks_[i].mlp.Forward(stream, MlpOf(adapter, layer), pass, recompute,
                               keep != nullptr ? &keep->mlp : nullptr);
  }
  return stream;
}

Tensor Gpt::BlocksBackward(Record record, const Pass& pass,
                           const Adapter* adapter, Tensor dstream) const {
  const int64_t lowest = record.lowest_layer;
  for (int64_t layer = config_.num_layers - 1; layer >= lowest; --layer) {
    const size_t i = static_cast<size_t>(layer);
    const AttentionAdapters& attention = AttentionOf(adapter, layer);
    const ops::InputGrad below =
        layer > lowest ? ops::InputGrad::kWhole : record.below;
    const bool attention_due =
        below != ops::InputGrad::kNone || attention.present();
    blocks_[i].mlp.Backward(
        std::move(record.layers[i].mlp), MlpOf(adapter, layer), pass,
        attention_due ? ops::InputGrad::kWhole : ops::InputGrad::kNone,
        &dstream);
    if (attention_due) {
      blocks_[i].attention.Backward(std::move(record.layers[i].attention),
                                    attention, pass, below, &dstream);
    }
    if (record.done) record.done(layer);
  }
  return dstream;
}

int64_t Gpt::GradRoom(const Adapter* adapter) const {
  int64_t room = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const Block& block = blocks_[static_cast<size_t>(layer)];
    room =
        std::max({room, block.attention.GradRoom(AttentionOf(adapter, layer)),
                  block.mlp.GradRoom(MlpOf(adapter, layer))});
  }
  return room;
}

// Memory for the losses comes before that of activations: it outlives them.
RowLosses Gpt::ForwardAndBackward(const Pass& pass, Recompute recompute,
                                  float grad_scale, const Adapter* adapter,
                                  Record record, Tensor* dx) const {
  RowLosses losses(device_, pass.host_targets);
  const Stream out =
      Blocks(Embed(pass), pass, adapter, recompute, nullptr, &record);
  Tensor dstream =
      head_->LossesAndGrad(out, pass.targets, grad_scale, pass.grad_scale,
                           GradRoom(adapter), &losses);
  *dx = BlocksBackward(std::move(record), pass, adapter, std::move(dstream));
  return losses;
}

RowLosses Gpt::Train(const Pass& pass, Recompute recompute, float grad_scale,
                     const Adapter& adapter, const LayerDone& done) const {
  Tensor dx;
  return ForwardAndBackward(
      pass, recompute, grad_scale, &adapter,
      {.lowest_layer = adapter.lowest_layer(), .done = done}, &dx);
}

std::vector<double> Gpt::TrainToEmbedding(const Pass& pass, Recompute recompute,
                                          float grad_scale,
                                          const Adapter* adapter,
                                          Tensor* dx) const {
  return ForwardAndBackward(pass, recompute, grad_scale, adapter,
                            {.below = ops::InputGrad::kWhole}, dx)
      .Read();
}

std::vector<double> Gpt::Evaluate(const Pass& pass,
                                  const Adapter* adapter) const {
  RowLosses losses(device_, pass.host_targets);
  const Stream out =
      Blocks(Embed(pass), pass, adapter, Recompute::kNone, nullptr, nullptr);
  head_->Losses(out, pass.targets, &losses);
  return losses.Read();
}

Tensor Gpt::Decode(const Pass& pass, const Adapter* adapter,
                   std::vector<KvCache>* caches) const {
  return head_->Logits(
      Blocks(Embed(pass), pass, adapter, Recompute::kNone, caches, nullptr));
}

std::vector<KvCache> Gpt::MakeCaches(int64_t tokens) const {
  std::vector<KvCache> caches(static_cast<size_t>(config_.num_layers));
  for (KvCache& cache : caches) {
    cache.k = Tensor::Empty(device_, {tokens, kv_features_}, compute_);
    cache.v = Tensor::Empty(device_, {tokens, kv_features_}, compute_);
  }
  return caches;
}

}  // namespace lorica
