#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/families/llama.h"
#include "model/rope.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::Status RefuseIfTrue(const JsonFields& fields, absl::string_view name) {
  bool value = false;
  LORICA_RETURN_IF_ERROR(fields.Read(name, &value));
  return value ? fields.Refuse(name, "only false is supported")
               : absl::OkStatus();
}

constexpr char kLlama[] = "LlamaForCausalLM";
constexpr char kQwen2[] = "Qwen2ForCausalLM";

absl::StatusOr<std::string> ReadArchitecture(const JsonFields& fields) {
  std::vector<std::string> architectures;
  LORICA_RETURN_IF_ERROR(fields.Read("architectures", &architectures));
  std::string type;
  LORICA_RETURN_IF_ERROR(fields.Read("model_type", &type));
  if (architectures.empty()) {
    if (type == "llama") return kLlama;
    if (type == "qwen2") return kQwen2;
    return fields.Refuse(
        "model_type", "only \"llama\", \"qwen2\" and \"gpt2\" are supported");
  }
  if (architectures[0] != kLlama && architectures[0] != kQwen2) {
    return absl::InvalidArgumentError(
        absl::StrCat(fields.place(), ": architectures is [\"", architectures[0],
                     "\"]; only [\"", kLlama, "\"], [\"", kQwen2,
                     "\"] and [\"GPT2LMHeadModel\"] are supported"));
  }
  return architectures[0];
}

absl::Status RefuseOtherModels(const JsonFields& fields,
                               const std::string& architecture) {
  LORICA_RETURN_IF_ERROR(RefuseIfTrue(fields, "use_sliding_window"));
  LORICA_RETURN_IF_ERROR(RefuseIfTrue(fields, "attention_bias"));
  LORICA_RETURN_IF_ERROR(RefuseIfTrue(fields, "mlp_bias"));
  std::string activation = "silu";
  LORICA_RETURN_IF_ERROR(fields.Read("hidden_act", &activation));
  if (activation != "silu") {
    return fields.Refuse("hidden_act", "only \"silu\" is supported");
  }
  for (const absl::string_view name :
       {"sliding_window", "quantization_config"}) {
    // A Qwen 2 names a window that it does not use.
    if (architecture == kQwen2 && name == "sliding_window") continue;
    if (fields.Has(name)) {
      return fields.Refuse(name, "only null is supported");
    }
  }
  double rotary_part = 1.0;
  LORICA_RETURN_IF_ERROR(fields.Read("partial_rotary_factor", &rotary_part));
  if (rotary_part != 1.0) {
    return fields.Refuse("partial_rotary_factor", "only 1 is supported");
  }
  return absl::OkStatus();
}

absl::Status RequirePositive(const JsonFields& fields, absl::string_view name,
                             double* value) {
  LORICA_RETURN_IF_ERROR(fields.Require(name, value));
  return *value > 0 ? absl::OkStatus()
                    : fields.Refuse(name, "it must be positive");
}

// `fields` is the object rope_scaling or rope_parameters.
absl::StatusOr<RopeScaling> ReadScaling(const JsonFields& fields,
                                        const GptConfig& config) {
  // The older name first, as transformers has it.
  std::string type = "default";
  LORICA_RETURN_IF_ERROR(fields.Read("type", &type));
  LORICA_RETURN_IF_ERROR(fields.Read("rope_type", &type));
  double rotary_part = 1.0;
  LORICA_RETURN_IF_ERROR(fields.Read("partial_rotary_factor", &rotary_part));
  if (rotary_part != 1.0) {
    return fields.Refuse("partial_rotary_factor", "only 1 is supported");
  }
  RopeScaling scaling;
  if (type == "default") {
    return scaling;
  }
  if (type != "linear" && type != "llama3") {
    return fields.Refuse(
        fields.Has("rope_type") ? "rope_type" : "type",
        "only \"default\", \"linear\" and \"llama3\" are supported");
  }
  LORICA_RETURN_IF_ERROR(RequirePositive(fields, "factor", &scaling.factor));
  if (type == "linear") {
    scaling.type = RopeScaling::Type::kLinear;
    return scaling;
  }
  scaling.type = RopeScaling::Type::kLlama3;
  LORICA_RETURN_IF_ERROR(
      RequirePositive(fields, "low_freq_factor", &scaling.low_freq_factor));
  LORICA_RETURN_IF_ERROR(
      RequirePositive(fields, "high_freq_factor", &scaling.high_freq_factor));
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return fields.Refuse("high_freq_factor",
                         "it must be above low_freq_factor");
  }
  scaling.original_max_positions = static_cast<double>(config.max_positions);
  if (fields.Has("original_max_position_embeddings")) {
    LORICA_RETURN_IF_ERROR(RequirePositive(fields,
                                           "original_max_position_embeddings",
                                           &scaling.original_max_positions));
  }
  return scaling;
}

absl::StatusOr<RopeConfig> ReadRope(const JsonFields& fields,
                                    const GptConfig& config) {
  double theta = 10000.0;
  LORICA_RETURN_IF_ERROR(fields.Read("rope_theta", &theta));
  RopeScaling scaling;
  // transformers 5 and 4.
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const Json* object = fields.Find(name);
    if (object == nullptr) {
      continue;
    }
    LORICA_ASSIGN_OR_RETURN(
        const JsonFields rope,
        JsonFields::Of(*object, absl::StrCat(fields.place(), ": ", name)));
    LORICA_RETURN_IF_ERROR(rope.Read("rope_theta", &theta));
    LORICA_ASSIGN_OR_RETURN(scaling, ReadScaling(rope, config));
    break;
  }
  if (!(theta > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        fields.place(), ": rope_theta is ", theta, "; it must be positive"));
  }
  return MakeRope(theta, config.head_dim, scaling);
}

}  // namespace

absl::StatusOr<GptConfig> LlamaFromJson(const Json& json,
                                        const std::string& place) {
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, place));
  GptConfig config;
  LORICA_ASSIGN_OR_RETURN(config.architecture, ReadArchitecture(fields));
  LORICA_RETURN_IF_ERROR(RefuseOtherModels(fields, config.architecture));
  config.qkv_bias = config.architecture == kQwen2;
  LORICA_RETURN_IF_ERROR(fields.Require("vocab_size", &config.vocab_size));
  LORICA_RETURN_IF_ERROR(fields.Require("hidden_size", &config.hidden_size));
  LORICA_RETURN_IF_ERROR(
      fields.Require("intermediate_size", &config.intermediate_size));
  LORICA_RETURN_IF_ERROR(
      fields.Require("num_hidden_layers", &config.num_layers));
  LORICA_RETURN_IF_ERROR(
      fields.Require("num_attention_heads", &config.num_heads));
  config.num_kv_heads = config.num_heads;
  LORICA_RETURN_IF_ERROR(
      fields.Read("num_key_value_heads", &config.num_kv_heads));
  config.head_dim =
      config.num_heads > 0 ? config.hidden_size / config.num_heads : 0;
  LORICA_RETURN_IF_ERROR(fields.Read("head_dim", &config.head_dim));
  config.max_positions = 2048;
  LORICA_RETURN_IF_ERROR(
      fields.Read("max_position_embeddings", &config.max_positions));
  double epsilon = 1e-6;
  LORICA_RETURN_IF_ERROR(fields.Read("rms_norm_eps", &epsilon));
  config.norm_epsilon = static_cast<float>(epsilon);
  LORICA_RETURN_IF_ERROR(fields.Read("tie_word_embeddings", &config.tied_head));
  if (config.head_dim <= 0 || config.head_dim > kMaxHeadDim) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": head_dim is ", config.head_dim, "; 1 to ",
                     kMaxHeadDim, " are possible"));
  }
  LORICA_ASSIGN_OR_RETURN(config.rope, ReadRope(fields, config));
  const absl::Status valid = config.Validate();
  if (!valid.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": ", valid.message()));
  }
  return config;
}

}  // namespace lorica
