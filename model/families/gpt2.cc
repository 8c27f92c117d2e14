#include "model/families/gpt2.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/rope.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kGpt2[] = "GPT2LMHeadModel";

// A switch whose other setting is another model.
absl::Status RequireSetting(const JsonFields& fields, absl::string_view name,
                            bool wanted) {
  bool value = wanted;
  LORICA_RETURN_IF_ERROR(fields.Read(name, &value));
  if (value == wanted) return absl::OkStatus();
  return fields.Refuse(
      name, absl::StrCat("only ", wanted ? "true" : "false", " is supported"));
}

absl::Status RefuseOtherModels(const JsonFields& fields) {
  for (const char* name : {"scale_attn_by_inverse_layer_idx",
                           "reorder_and_upcast_attn", "add_cross_attention"}) {
    LORICA_RETURN_IF_ERROR(RequireSetting(fields, name, false));
  }
  LORICA_RETURN_IF_ERROR(RequireSetting(fields, "scale_attn_weights", true));
  std::string activation = "gelu_new";
  LORICA_RETURN_IF_ERROR(fields.Read("activation_function", &activation));
  if (activation != "gelu_new") {
    return fields.Refuse("activation_function",
                         "only \"gelu_new\" is supported");
  }
  return fields.Has("quantization_config")
             ? fields.Refuse("quantization_config", "only null is supported")
             : absl::OkStatus();
}

}  // namespace

bool IsGpt2(const Json& config) {
  if (!config.is_object()) return false;
  const auto architectures = config.find("architectures");
  if (architectures != config.end() && architectures->is_array() &&
      !architectures->empty()) {
    return architectures->front() == kGpt2;
  }
  const auto type = config.find("model_type");
  return type != config.end() && *type == "gpt2";
}

absl::StatusOr<GptConfig> Gpt2FromJson(const Json& json,
                                       const std::string& place) {
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, place));
  LORICA_RETURN_IF_ERROR(RefuseOtherModels(fields));
  GptConfig config = {.architecture = kGpt2,
                      .family = Family::kGpt2,
                      .norm = NormKind::kLayer,
                      .positions = Positions::kLearned,
                      .activation = Activation::kGelu,
                      .tied_head = true};
  LORICA_RETURN_IF_ERROR(fields.Require("vocab_size", &config.vocab_size));
  LORICA_RETURN_IF_ERROR(fields.Require("n_embd", &config.hidden_size));
  LORICA_RETURN_IF_ERROR(fields.Require("n_layer", &config.num_layers));
  LORICA_RETURN_IF_ERROR(fields.Require("n_head", &config.num_heads));
  LORICA_RETURN_IF_ERROR(fields.Require("n_positions", &config.max_positions));
  // Validate refuses larger sizes, of which four would not be an int64_t.
  constexpr int64_t kLimit = int64_t{1} << 31;
  config.intermediate_size = 4 * std::min(config.hidden_size, kLimit);
  LORICA_RETURN_IF_ERROR(fields.Read("n_inner", &config.intermediate_size));
  double epsilon = 1e-5;
  LORICA_RETURN_IF_ERROR(fields.Read("layer_norm_epsilon", &epsilon));
  config.norm_epsilon = static_cast<float>(epsilon);
  LORICA_RETURN_IF_ERROR(fields.Read("tie_word_embeddings", &config.tied_head));
  if (config.num_heads <= 0 || config.hidden_size <= 0 ||
      config.hidden_size % config.num_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        place, ": n_embd is ", config.hidden_size, " and n_head ",
        config.num_heads, "; a positive multiple of n_head is needed"));
  }
  config.num_kv_heads = config.num_heads;
  config.head_dim = config.hidden_size / config.num_heads;
  if (config.head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": n_embd is ", config.hidden_size, " and n_head ",
                     config.num_heads, ", heads of ", config.head_dim,
                     "; up to ", kMaxHeadDim, " are possible"));
  }
  const absl::Status valid = config.Validate();
  if (!valid.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": ", valid.message()));
  }
  return config;
}

std::string Gpt2NameOf(absl::string_view name) {
  if (absl::EndsWith(name, ".attn.bias") ||
      absl::EndsWith(name, ".attn.masked_bias")) {
    return "";
  }
  if (absl::StartsWith(name, "transformer.") || name == "lm_head.weight") {
    return std::string(name);
  }
  return absl::StrCat("transformer.", name);
}

std::string Gpt2NameInGguf(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "transformer.h.")) return "";
  const size_t dot = name.find('.');
  if (dot == absl::string_view::npos) return "";
  constexpr std::pair<const char*, const char*> kParts[] = {
      {"attn.c_attn.weight", "attn_qkv.weight"},
      {"attn.c_proj.weight", "attn_output.weight"},
      {"mlp.c_fc.weight", "ffn_up.weight"},
      {"mlp.c_proj.weight", "ffn_down.weight"}};
  for (const auto& [ours, theirs] : kParts) {
    if (name.substr(dot + 1) == ours) {
      return absl::StrCat("blk.", name.substr(0, dot), ".", theirs);
    }
  }
  return "";
}

}  // namespace lorica
