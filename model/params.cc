#include "model/params.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lorica {
namespace {

std::string LayerName(int64_t layer, const char* rest) {
  return absl::StrCat("model.layers.", layer, ".", rest);
}

// The widest power of two up to 64 that divides `size` and still leaves every
// rank a unit: slices then start where vectors do.
int64_t AlignedUnit(int64_t size, int ranks) {
  int64_t unit = 64;
  while (unit > 1 && (size % unit != 0 || size / unit < ranks)) unit /= 2;
  return unit;
}

// Query heads and key/value heads of each rank.
void SplitHeads(const GptConfig& config, int ranks, ModelSplit* split) {
  const int64_t kv_heads = config.num_kv_heads;
  const int64_t group = config.num_heads / kv_heads;
  const int64_t dim = config.head_dim;
  for (int rank = 0; rank < ranks; ++rank) {
    Range kv;
    Range heads;
    if (ranks <= kv_heads) {
      kv = SplitUnits(kv_heads, rank, ranks);
      heads = {kv.begin * group, kv.end * group};
    } else {
      // Ranks first .. first + sharers - 1 share head `shared`.
      int64_t shared = 0;
      Range sharers;
      while (true) {
        sharers = SplitUnits(ranks, static_cast<int>(shared),
                             static_cast<int>(kv_heads));
        if (rank < sharers.end) break;
        ++shared;
      }
      kv = {shared, shared + 1};
      const Range part =
          SplitUnits(group, static_cast<int>(rank - sharers.begin),
                     static_cast<int>(sharers.size()));
      heads = {shared * group + part.begin, shared * group + part.end};
    }
    split->heads.push_back({heads.begin * dim, heads.end * dim});
    split->kv_heads.push_back({kv.begin * dim, kv.end * dim});
  }
}

}  // namespace

absl::StatusOr<ModelSplit> SplitModel(const GptConfig& config, int ranks) {
  const int64_t group = config.num_heads / config.num_kv_heads;
  const int64_t sharers =
      (ranks + config.num_kv_heads - 1) / config.num_kv_heads;
  if (ranks > config.num_kv_heads && sharers > group) {
    return absl::InvalidArgumentError(absl::StrCat(
        config.num_heads, " heads (", config.num_kv_heads,
        " key/value heads) do not divide over ", ranks,
        " tensor ranks; mesh.tensor is at most ", config.num_heads));
  }
  if (config.intermediate_size < ranks || config.vocab_size < ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat("an intermediate size of ", config.intermediate_size,
                     " and a vocabulary of ", config.vocab_size,
                     " do not divide over ", ranks, " tensor ranks"));
  }
  ModelSplit split;
  SplitHeads(config, ranks, &split);
  split.mlp = SplitEvenly(config.intermediate_size,
                          AlignedUnit(config.intermediate_size, ranks), ranks);
  split.vocab = SplitEvenly(config.vocab_size,
                            AlignedUnit(config.vocab_size, ranks), ranks);
  return split;
}

std::vector<LinearSpec> LinearsOfLayer(const GptConfig& config,
                                       const ModelSplit& split, int64_t layer) {
  const int64_t hidden = config.hidden_size;
  const int64_t q = config.num_heads * config.head_dim;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  const int64_t mlp = config.intermediate_size;
  const ShardSpec q_rows = Sharded(0, split.heads);
  const ShardSpec kv_rows = Sharded(0, split.kv_heads);
  const ShardSpec mlp_rows = Sharded(0, split.mlp);
  const auto spec = [&](const char* name, Shape shape, ShardSpec shard) {
    return LinearSpec{LayerName(layer, name), layer, shape, std::move(shard)};
  };
  std::vector<LinearSpec> linears = {
      spec("self_attn.q_proj", {q, hidden}, q_rows),
      spec("self_attn.k_proj", {kv, hidden}, kv_rows),
      spec("self_attn.v_proj", {kv, hidden}, kv_rows),
      spec("self_attn.o_proj", {hidden, q}, Sharded(1, split.heads)),
      spec("mlp.gate_proj", {mlp, hidden}, mlp_rows),
      spec("mlp.up_proj", {mlp, hidden}, mlp_rows),
      spec("mlp.down_proj", {hidden, mlp}, Sharded(1, split.mlp))};
  for (const LinearKind kind : {kQ, kK, kV}) {
    linears[static_cast<size_t>(kind)].biased = config.qkv_bias;
  }
  return linears;
}

std::string EmbeddingName() { return "model.embed_tokens.weight"; }

std::string HeadName(const GptConfig& config) {
  return config.tied_head ? EmbeddingName() : "lm_head.weight";
}

std::string FinalNormName() { return "model.norm.weight"; }

std::string AttentionNormName(int64_t layer) {
  return LayerName(layer, "input_layernorm.weight");
}

std::string MlpNormName(int64_t layer) {
  return LayerName(layer, "post_attention_layernorm.weight");
}

std::vector<ParamSpec> FrozenParams(const GptConfig& config,
                                    const ModelSplit& split) {
  const Shape vocab = {config.vocab_size, config.hidden_size};
  const ShardSpec vocab_rows = Sharded(0, split.vocab);
  const auto norm = [&](std::string name) {
    return ParamSpec{std::move(name), Shape{config.hidden_size}, Invariant(),
                     Storage::kF32};
  };
  std::vector<ParamSpec> params = {{EmbeddingName(), vocab, vocab_rows}};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    params.push_back(norm(AttentionNormName(layer)));
    params.push_back(norm(MlpNormName(layer)));
    for (const LinearSpec& linear : LinearsOfLayer(config, split, layer)) {
      params.push_back({linear.module + ".weight", linear.shape, linear.shard});
      if (!linear.biased) continue;
      params.push_back({linear.module + ".bias", Shape{linear.shape[0]},
                        Sharded(0, linear.shard.split)});
    }
  }
  params.push_back(norm(FinalNormName()));
  if (!config.tied_head) {
    params.push_back({HeadName(config), vocab, vocab_rows});
  }
  return params;
}

}  // namespace lorica
