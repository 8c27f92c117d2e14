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
  // The next array, its sections one behind the other.
  Tensor Take();
  Norm TakeNorm(const GptConfig& config);
  // The linear layers from `first` on that share an input, as the device wants
  // them to lie.
  FrozenLinear TakeLinears(const Tensor& like, int64_t layer, LinearKind first,
                           size_t count, Adapter* resident);

 private:
  // The specs from `first` on that are sections of one array end here.
  size_t EndOfArray(size_t first) const;
  Slice SliceOf(size_t at) const {
    return lorica::SliceOf(params_[at].shard, params_[at].shape, rank_);
  }
  // Takes the bias that belongs to the weight before, absent where there is
  // none or another rank has it.
  Tensor TakeBias();

  std::vector<ParamSpec> params_;
  int rank_;
  const LoadParam& load_;
  size_t next_ = 0;
};

size_t Loader::EndOfArray(size_t first) const {
  size_t end = first + 1;
  while (end < params_.size() && params_[end].name == params_[first].name) {
    ++end;
  }
  return end;
}

Tensor Loader::Take() {
  const size_t first = std::exchange(next_, EndOfArray(next_));
  if (next_ == first + 1) return load_(params_[first], SliceOf(first));
  std::vector<Tensor> sections;
  int64_t total = 0;  // Rows of a matrix, elements of a vector.
  for (size_t i = first; i < next_; ++i) {
    sections.push_back(load_(params_[i], SliceOf(i)));
    total += sections.back().shape()[0];
  }
  const Tensor& like = sections.front();
  const bool matrix = like.shape().rank() == 2;
  const Tensor whole = Tensor::Empty(
      like.device(), matrix ? Shape{total, like.cols()} : Shape{total},
      like.dtype());
  Range place = {0, 0};
  for (const Tensor& section : sections) {
    place = {place.end, place.end + section.shape()[0]};
    Tensor part = matrix ? whole.Rows(place) : whole.Cols(place);
    ops::ConvertInto(section, 1.0f, &part);
  }
  return whole;
}

Norm Loader::TakeNorm(const GptConfig& config) {
  const Tensor weight = Take();
  return Norm(config.norm, config.norm_epsilon, weight,
              config.norm == NormKind::kLayer ? Take() : Tensor());
}

Tensor Loader::TakeBias() {
  if (done() || !absl::EndsWith(params_[next_].name, ".bias")) return {};
  if (SliceOf(next_).cols.size() > 0) return Take();
  next_ = EndOfArray(next_);
  return {};
}

FrozenLinear Loader::TakeLinears(const Tensor& like, int64_t layer,
                                 LinearKind first, size_t count,
                                 Adapter* resident) {
  FrozenLinear linear;
  Device* device = like.device();
  if (device->backend().linear_layout == LinearLayout::kApart) {
    for (size_t i = 0; i < count; ++i) {
      linear.weights.push_back(Take());
      Tensor bias = TakeBias();
      if (bias.present()) linear.biases.push_back(std::move(bias));
    }
    return linear;
  }
  std::vector<int64_t> outputs;
  int64_t inputs = 0;
  for (size_t i = next_; outputs.size() < count;) {
    const size_t end = EndOfArray(i);
    if (params_[i].shape.rank() == 2) {
      outputs.push_back(0);
      for (size_t at = i; at < end; ++at) {
        outputs.back() += SliceOf(at).rows.size();
        inputs = SliceOf(at).cols.size();
      }
    }
    i = end;
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
    const Tensor bias = TakeBias();
    if (!bias.present()) continue;
    if (!biases.present()) biases = Tensor::Empty(device, all, like.dtype());
    linear.biases.push_back(biases.Cols(place));
    ops::ConvertInto(bias, 1.0f, &linear.biases.back());
  }
  if (adapted) resident->MoveInto(layer, first, stack);
  return linear;
}

// Of a block's linear layers, those of the kinds `first` to `last`.
size_t Count(const std::vector<LinearSpec>& linears, LinearKind first,
             LinearKind last) {
  return static_cast<size_t>(std::count_if(
      linears.begin(), linears.end(), [=](const LinearSpec& linear) {
        return linear.kind >= first && linear.kind <= last;
      }));
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
  if (config_.positions == Positions::kLearned) {
    positions_ = {.weight = loader.Take(),
                  .first = split.positions[static_cast<size_t>(rank)].begin};
  } else {
    MakeRopeTable();
  }
  const std::vector<LinearSpec> linears = LinearsOfLayer(config_, split, 0);
  blocks_.reserve(static_cast<size_t>(config_.num_layers));
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const Norm attention_norm = loader.TakeNorm(config_);
    const Norm mlp_norm = loader.TakeNorm(config_);
    const auto take = [&](LinearKind first, LinearKind last) {
      return loader.TakeLinears(embedding_.weight, layer, first,
                                Count(linears, first, last), resident);
    };
    const FrozenLinear qkv = take(kQ, kV);
    const FrozenLinear o = take(kO, kO);
    const FrozenLinear up = take(kGate, kUp);
    const FrozenLinear down = take(kDown, kDown);
    blocks_.push_back(
        {Attention({.norm = attention_norm, .qkv = qkv, .o = o}, plan_,
                   config_.head_dim, rope_.cos.present() ? &rope_ : nullptr,
                   group_),
         Mlp({.norm = mlp_norm, .up = up, .down = down}, config_.activation,
             plan_, group_)});
  }
  const Norm final_norm = loader.TakeNorm(config_);
  ops::HeadSlice head = embedding_;
  if (!config_.tied_head) head.weight = loader.Take();
  CHECK(loader.done());
  head_ = std::make_unique<LossHead>(final_norm, head, plan_.column, group_);
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
  if (positions_.weight.present()) {
    // Terms of the sum over the ranks, as the embedding's rows are.
    ops::AddInto(
        ops::GatherRows(positions_.weight, pass.positions, positions_.first),
        &x);
  }
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

Tensor Gpt::ForwardAndBackward(const Pass& pass, Recompute recompute,
                               float grad_scale, const Adapter* adapter,
                               Record record, RowLosses* losses) const {
  const Stream out =
      Blocks(Embed(pass), pass, adapter, recompute, nullptr, &record);
  Tensor dstream =
      head_->LossesAndGrad(out, pass.targets, grad_scale, pass.grad_scale,
                           GradRoom(adapter), losses);
  return BlocksBackward(std::move(record), pass, adapter, std::move(dstream));
}

// Memory for the losses comes before that of activations: it outlives them.
RowLosses Gpt::Train(const Pass& pass, Recompute recompute, float grad_scale,
                     const Adapter& adapter, const LayerDone& done) const {
  RowLosses losses(device_, pass.host_targets);
  Train(pass, recompute, grad_scale, adapter, done, &losses);
  return losses;
}

void Gpt::Train(const Pass& pass, Recompute recompute, float grad_scale,
                const Adapter& adapter, const LayerDone& done,
                RowLosses* losses) const {
  ForwardAndBackward(pass, recompute, grad_scale, &adapter,
                     {.lowest_layer = adapter.lowest_layer(), .done = done},
                     losses);
}

std::vector<double> Gpt::TrainToEmbedding(const Pass& pass, Recompute recompute,
                                          float grad_scale,
                                          const Adapter* adapter,
                                          Tensor* dx) const {
  RowLosses losses(device_, pass.host_targets);
  *dx = ForwardAndBackward(pass, recompute, grad_scale, adapter,
                           {.below = ops::InputGrad::kWhole}, &losses);
  return losses.Read();
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
