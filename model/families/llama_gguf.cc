#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "model/families/llama.h"
#include "model/rope.h"
#include "runtime/files/block_decode.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kRopeDivisors[] = "rope_freqs.weight";

absl::Status Refuse(const GgufFile& file, absl::string_view key,
                    absl::string_view reason) {
  const auto value = file.values().find(key);
  return absl::InvalidArgumentError(absl::StrCat(
      file.path(), ": ", key, " is ",
      value == file.values().end() ? "absent"
                                   : GgufValueToString(value->second),
      "; ", reason));
}

// What a GGUF calls an architecture, and Hugging Face.
struct NamePair {
  const char* theirs;
  const char* ours;
};
constexpr NamePair kArchitectures[] = {{"llama", "LlamaForCausalLM"},
                                       {"qwen2", "Qwen2ForCausalLM"}};

// The name of the other side of the pair whose `from` side is `name`, or "".
std::string Translate(absl::Span<const NamePair> pairs, absl::string_view name,
                      const char* NamePair::*from, const char* NamePair::*to) {
  for (const NamePair& pair : pairs) {
    if (name == pair.*from) return pair.*to;
  }
  return "";
}

absl::Status ReadArchitecture(const GgufFile& file, GptConfig* config) {
  std::string architecture;
  LORICA_RETURN_IF_ERROR(file.Require("general.architecture", &architecture));
  config->architecture = Translate(kArchitectures, architecture,
                                   &NamePair::theirs, &NamePair::ours);
  config->qkv_bias = architecture == "qwen2";
  return config->architecture.empty()
             ? Refuse(file, "general.architecture",
                      "only \"llama\" and \"qwen2\" are supported")
             : absl::OkStatus();
}

absl::Status RefuseOtherModels(const GgufFile& file, const GptConfig& config) {
  for (const char* name : {"expert_count", "attention.sliding_window"}) {
    const std::string key = LlamaKeyInGguf(config, name);
    int64_t count = 0;
    if (file.Has(key) && (!file.Read(key, &count).ok() || count != 0)) {
      return Refuse(file, key, "it is not supported");
    }
  }
  return absl::OkStatus();
}

// What every head's size is, from whichever keys say so.
absl::StatusOr<int64_t> ReadHeadDim(const GgufFile& file,
                                    const GptConfig& config) {
  int64_t head_dim =
      config.num_heads > 0 ? config.hidden_size / config.num_heads : 0;
  LORICA_RETURN_IF_ERROR(
      file.Read(LlamaKeyInGguf(config, "attention.key_length"), &head_dim));
  if (head_dim <= 0 || head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": the size of a head is ", head_dim,
                     "; 1 to ", kMaxHeadDim, " are possible"));
  }
  for (const char* name : {"attention.value_length", "rope.dimension_count"}) {
    const std::string key = LlamaKeyInGguf(config, name);
    int64_t size = head_dim;
    LORICA_RETURN_IF_ERROR(file.Read(key, &size));
    if (size != head_dim) {
      return Refuse(file, key,
                    absl::StrCat("only the size of a head, ", head_dim,
                                 ", is supported"));
    }
  }
  return head_dim;
}

absl::StatusOr<RopeScaling> ReadScaling(const GgufFile& file,
                                        const GptConfig& config) {
  const auto key = [&](const char* name) {
    return LlamaKeyInGguf(config, name);
  };
  std::string type = "none";
  RopeScaling scaling;
  // The key of early files, then that of later ones.
  if (file.Has(key("rope.scale_linear"))) {
    type = "linear";
    LORICA_RETURN_IF_ERROR(
        file.Read(key("rope.scale_linear"), &scaling.factor));
  }
  LORICA_RETURN_IF_ERROR(file.Read(key("rope.scaling.type"), &type));
  LORICA_RETURN_IF_ERROR(
      file.Read(key("rope.scaling.factor"), &scaling.factor));
  if (type == "linear") {
    if (!(scaling.factor > 0)) {
      return Refuse(file, key("rope.scaling.factor"), "it must be positive");
    }
    scaling.type = RopeScaling::Type::kLinear;
  } else if (type != "none") {
    return Refuse(file, key("rope.scaling.type"),
                  "only \"none\" and \"linear\" are supported");
  }
  return scaling;
}

absl::StatusOr<RopeConfig> ReadRope(const GgufFile& file,
                                    const GptConfig& config) {
  const int64_t head_dim = config.head_dim;
  const std::string theta_key = LlamaKeyInGguf(config, "rope.freq_base");
  double theta = 10000.0;
  LORICA_RETURN_IF_ERROR(file.Read(theta_key, &theta));
  if (!(theta > 0)) {
    return Refuse(file, theta_key, "it must be positive");
  }
  LORICA_ASSIGN_OR_RETURN(const RopeScaling scaling, ReadScaling(file, config));
  RopeConfig rope = MakeRope(theta, head_dim, scaling);
  const auto found = file.tensors().find(kRopeDivisors);
  if (found == file.tensors().end()) {
    return rope;
  }
  const StoredTensor& tensor = found->second;
  const Shape shape = {head_dim / 2};
  if (tensor.type != StoredType::kF32 ||
      tensor.shape != std::vector<int64_t>{shape[0]}) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": tensor ", kRopeDivisors, " is ",
                     NameOf(tensor.type), " ", ShapeToString(tensor.shape),
                     "; F32 ", shape.ToString(), " is needed"));
  }
  std::vector<float> divisors(rope.inv_freq.size());
  DecodeRow(tensor.type, tensor.bytes.data(), {0, shape[0]}, divisors.data());
  DivideFrequencies(divisors, &rope);
  return rope;
}

// A tensor's names.
constexpr NamePair kOuterNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
// Of the tensors of a layer, behind its number.
constexpr NamePair kPartNames[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};

// A layer's tensor: the layer's number, and the name behind it.
struct LayerPart {
  int64_t layer = 0;
  absl::string_view part;
};

std::optional<LayerPart> SplitName(absl::string_view name,
                                   absl::string_view prefix) {
  LayerPart result;
  if (!absl::ConsumePrefix(&name, prefix)) return std::nullopt;
  const size_t dot = name.find('.');
  if (dot == absl::string_view::npos ||
      !absl::SimpleAtoi(name.substr(0, dot), &result.layer) ||
      result.layer < 0) {
    return std::nullopt;
  }
  result.part = name.substr(dot + 1);
  return result;
}

// "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight". Or "".
std::string HuggingFaceName(absl::string_view name) {
  const std::optional<LayerPart> split = SplitName(name, "blk.");
  if (!split.has_value()) {
    return Translate(kOuterNames, name, &NamePair::theirs, &NamePair::ours);
  }
  const std::string part =
      Translate(kPartNames, split->part, &NamePair::theirs, &NamePair::ours);
  return part.empty() ? ""
                      : absl::StrCat("model.layers.", split->layer, ".", part);
}

}  // namespace

absl::StatusOr<GptConfig> LlamaFromGguf(const GgufFile& file) {
  GptConfig config;
  LORICA_RETURN_IF_ERROR(ReadArchitecture(file, &config));
  LORICA_RETURN_IF_ERROR(RefuseOtherModels(file, config));
  const auto key = [&](const char* name) {
    return LlamaKeyInGguf(config, name);
  };
  LORICA_RETURN_IF_ERROR(file.Require(key("block_count"), &config.num_layers));
  LORICA_RETURN_IF_ERROR(
      file.Require(key("embedding_length"), &config.hidden_size));
  LORICA_RETURN_IF_ERROR(
      file.Require(key("feed_forward_length"), &config.intermediate_size));
  LORICA_RETURN_IF_ERROR(
      file.Require(key("context_length"), &config.max_positions));
  LORICA_RETURN_IF_ERROR(
      file.Require(key("attention.head_count"), &config.num_heads));
  config.num_kv_heads = config.num_heads;
  LORICA_RETURN_IF_ERROR(
      file.Read(key("attention.head_count_kv"), &config.num_kv_heads));
  double epsilon = 0;
  LORICA_RETURN_IF_ERROR(
      file.Require(key("attention.layer_norm_rms_epsilon"), &epsilon));
  config.norm_epsilon = static_cast<float>(epsilon);
  LORICA_ASSIGN_OR_RETURN(config.head_dim, ReadHeadDim(file, config));
  LORICA_ASSIGN_OR_RETURN(config.rope, ReadRope(file, config));
  const auto embedding = file.tensors().find("token_embd.weight");
  if (embedding == file.tensors().end() ||
      embedding->second.shape.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": tensor token_embd.weight is missing or no matrix"));
  }
  config.vocab_size = embedding->second.shape[0];
  config.tied_head = file.tensors().count("output.weight") == 0;
  const absl::Status valid = config.Validate();
  if (!valid.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": ", valid.message()));
  }
  return config;
}

absl::StatusOr<StoredWeights> LlamaWeightsOfGguf(const GgufFile& file,
                                                 const GptConfig& config) {
  StoredWeights weights;
  for (const auto& [name, tensor] : file.tensors()) {
    if (name == kRopeDivisors) {
      continue;
    }
    const std::string ours = HuggingFaceName(name);
    if (ours.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": tensor ", name, " is not part of a ",
                       ArchitectureInGguf(config), " model"));
    }
    StoredWeight weight{
        .tensor = tensor,
        .interleaved_rows = InterleavedRowsInGguf(ours, config)};
    weights.emplace(ours, std::move(weight));
  }
  return weights;
}

std::string LlamaNameInGguf(absl::string_view name) {
  const std::optional<LayerPart> split = SplitName(name, "model.layers.");
  if (!split.has_value()) {
    return Translate(kOuterNames, name, &NamePair::ours, &NamePair::theirs);
  }
  const std::string part =
      Translate(kPartNames, split->part, &NamePair::ours, &NamePair::theirs);
  return part.empty() ? "" : absl::StrCat("blk.", split->layer, ".", part);
}

std::string LlamaKeyInGguf(const GptConfig& config, absl::string_view name) {
  return absl::StrCat(ArchitectureInGguf(config), ".", name);
}

std::string ArchitectureInGguf(const GptConfig& config) {
  return Translate(kArchitectures, config.architecture, &NamePair::ours,
                   &NamePair::theirs);
}

int64_t InterleavedRowsInGguf(absl::string_view name, const GptConfig& config) {
  // Of a Qwen 2 the halves stay where they are.
  if (ArchitectureInGguf(config) != "llama") return 0;
  return absl::EndsWith(name, ".q_proj.weight") ||
                 absl::EndsWith(name, ".k_proj.weight")
             ? config.head_dim
             : 0;
}

}  // namespace lorica
