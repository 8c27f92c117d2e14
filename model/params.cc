#include "model/params.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lorica {
namespace {

// What a family calls its modules; Hugging Face's names.
struct Names {
  const char* embedding;
  const char* positions;
  const char* layers;
  const char* attention_norm;
  const char* mlp_norm;
  const char* final_norm;
};
constexpr Names kLlamaNames = {.embedding = "model.embed_tokens",
                               .positions = "",
                               .layers = "model.layers.",
                               .attention_norm = "input_layernorm",
                               .mlp_norm = "post_attention_layernorm",
                               .final_norm = "model.norm"};
constexpr Names kGpt2Names = {.embedding = "transformer.wte",
                              .positions = "transformer.wpe",
                              .layers = "transformer.h.",
                              .attention_norm = "ln_1",
                              .mlp_norm = "ln_2",
                              .final_norm = "transformer.ln_f"};

const Names& NamesOf(const GptConfig& config) {
  return config.family == Family::kLlama ? kLlamaNames : kGpt2Names;
}

std::string LayerName(const GptConfig& config, int64_t layer,
                      const char* rest) {
  return absl::StrCat(NamesOf(config).layers, layer, ".", rest);
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
  if (config.positions == Positions::kLearned && config.max_positions < ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.max_positions,
                     " learned positions do not divide "
                     "over ",
                     ranks, " tensor ranks"));
  }
  ModelSplit split;
  SplitHeads(config, ranks, &split);
  split.mlp = SplitEvenly(config.intermediate_size,
                          AlignedUnit(config.intermediate_size, ranks), ranks);
  split.vocab = SplitEvenly(config.vocab_size,
                            AlignedUnit(config.vocab_size, ranks), ranks);
  if (config.positions == Positions::kLearned) {
    split.positions = SplitEvenly(
        config.max_positions, AlignedUnit(config.max_positions, ranks), ranks);
  }
  return split;
}

ShardSpec SectionOf(const ShardSpec& spec, int section, int64_t rows) {
  ShardSpec moved = spec;
  for (Range& range : moved.split) {
    range = {range.begin + section * rows, range.end + section * rows};
  }
  return moved;
}

namespace {

std::vector<LinearSpec> LlamaLinears(const GptConfig& config,
                                     const ModelSplit& split, int64_t layer) {
  const int64_t hidden = config.hidden_size;
  const int64_t q = config.num_heads * config.head_dim;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  const int64_t mlp = config.intermediate_size;
  const ShardSpec q_rows = Sharded(0, split.heads);
  const ShardSpec kv_rows = Sharded(0, split.kv_heads);
  const ShardSpec mlp_rows = Sharded(0, split.mlp);
  const auto spec = [&](LinearKind kind, const char* name, Shape shape,
                        ShardSpec shard) {
    return LinearSpec{.module = LayerName(config, layer, name),
                      .kind = kind,
                      .layer = layer,
                      .shape = shape,
                      .shard = std::move(shard),
                      .biased = config.qkv_bias && kind <= kV};
  };
  return {spec(kQ, "self_attn.q_proj", {q, hidden}, q_rows),
          spec(kK, "self_attn.k_proj", {kv, hidden}, kv_rows),
          spec(kV, "self_attn.v_proj", {kv, hidden}, kv_rows),
          spec(kO, "self_attn.o_proj", {hidden, q}, Sharded(1, split.heads)),
          spec(kGate, "mlp.gate_proj", {mlp, hidden}, mlp_rows),
          spec(kUp, "mlp.up_proj", {mlp, hidden}, mlp_rows),
          spec(kDown, "mlp.down_proj", {hidden, mlp}, Sharded(1, split.mlp))};
}

// All of them have biases.
std::vector<LinearSpec> Gpt2Linears(const GptConfig& config,
                                    const ModelSplit& split, int64_t layer) {
  const int64_t hidden = config.hidden_size;
  const int64_t mlp = config.intermediate_size;
  const auto spec = [&](LinearKind kind, const char* name, Shape shape,
                        ShardSpec shard) {
    return LinearSpec{.module = LayerName(config, layer, name),
                      .kind = kind,
                      .layer = layer,
                      .shape = shape,
                      .shard = std::move(shard),
                      .sections = kind == kQ ? 3 : 1,
                      .biased = true,
                      .file_order = FileOrder::kTransposed};
  };
  return {
      spec(kQ, "attn.c_attn", {3 * hidden, hidden}, Sharded(0, split.heads)),
      spec(kO, "attn.c_proj", {hidden, hidden}, Sharded(1, split.heads)),
      spec(kGate, "mlp.c_fc", {mlp, hidden}, Sharded(0, split.mlp)),
      spec(kDown, "mlp.c_proj", {hidden, mlp}, Sharded(1, split.mlp))};
}

// The split of a bias. Of a layer whose outputs are summed over the ranks the
// first rank has it alone, so that the sum does.
ShardSpec BiasShard(const LinearSpec& linear) {
  if (linear.shard.dim == 0) return Sharded(0, linear.shard.split);
  const int64_t outputs = linear.shape[0];
  Split first(linear.shard.split.size(), Range{outputs, outputs});
  first.front() = {0, outputs};
  return Sharded(0, std::move(first));
}

void AddLinear(const LinearSpec& linear, std::vector<ParamSpec>* params) {
  const int64_t rows = linear.shape[0] / linear.sections;
  for (int section = 0; section < linear.sections; ++section) {
    params->push_back({.name = linear.module + ".weight",
                       .shape = linear.shape,
                       .shard = SectionOf(linear.shard, section, rows),
                       .file_order = linear.file_order});
  }
  if (!linear.biased) return;
  for (int section = 0; section < linear.sections; ++section) {
    params->push_back({.name = linear.module + ".bias",
                       .shape = Shape{linear.shape[0]},
                       .shard = SectionOf(BiasShard(linear), section, rows)});
  }
}

}  // namespace

std::vector<LinearSpec> LinearsOfLayer(const GptConfig& config,
                                       const ModelSplit& split, int64_t layer) {
  return config.family == Family::kLlama ? LlamaLinears(config, split, layer)
                                         : Gpt2Linears(config, split, layer);
}

std::string EmbeddingName(const GptConfig& config) {
  return absl::StrCat(NamesOf(config).embedding, ".weight");
}

std::vector<ParamSpec> FrozenParams(const GptConfig& config,
                                    const ModelSplit& split) {
  const Names& names = NamesOf(config);
  const int64_t hidden = config.hidden_size;
  const Shape vocab = {config.vocab_size, hidden};
  const ShardSpec vocab_rows = Sharded(0, split.vocab);
  std::vector<ParamSpec> params = {{EmbeddingName(config), vocab, vocab_rows}};
  if (config.positions == Positions::kLearned) {
    params.push_back({absl::StrCat(names.positions, ".weight"),
                      Shape{config.max_positions, hidden},
                      Sharded(0, split.positions)});
  }
  const auto add_norm = [&](const std::string& module) {
    params.push_back(
        {module + ".weight", Shape{hidden}, Invariant(), Storage::kF32});
    if (config.norm != NormKind::kLayer) return;
    params.push_back(
        {module + ".bias", Shape{hidden}, Invariant(), Storage::kF32});
  };
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    add_norm(LayerName(config, layer, names.attention_norm));
    add_norm(LayerName(config, layer, names.mlp_norm));
    for (const LinearSpec& linear : LinearsOfLayer(config, split, layer)) {
      AddLinear(linear, &params);
    }
  }
  add_norm(names.final_norm);
  if (!config.tied_head) {
    params.push_back({"lm_head.weight", vocab, vocab_rows});
  }
  return params;
}

}  // namespace lorica
