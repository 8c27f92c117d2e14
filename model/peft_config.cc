#include "model/peft_config.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Keys that are read below, and those that change nothing for a trained
// adapter whatever they hold.
bool IsKnown(const std::string& key) {
  static constexpr const char* kKnown[] = {"alpha_pattern",
                                           "auto_mapping",
                                           "base_model_name_or_path",
                                           "bias",
                                           "exclude_modules",
                                           "fan_in_fan_out",
                                           "inference_mode",
                                           "init_lora_weights",
                                           "layers_pattern",
                                           "lora_alpha",
                                           "layers_to_transform",
                                           "lora_dropout",
                                           "megatron_core",
                                           "peft_type",
                                           "peft_version",
                                           "qalora_group_size",
                                           "r",
                                           "rank_pattern",
                                           "revision",
                                           "target_modules",
                                           "task_type",
                                           "use_rslora"};
  return std::find(std::begin(kKnown), std::end(kKnown), key) !=
         std::end(kKnown);
}

bool IsEmpty(const Json& value) {
  return value.is_null() || value == false ||
         (value.is_structured() && value.empty());
}

absl::Status RequireText(const JsonFields& fields, absl::string_view name,
                         const std::string& wanted) {
  std::string value = wanted;
  LORICA_RETURN_IF_ERROR(fields.Read(name, &value));
  return value == wanted ? absl::OkStatus()
                         : fields.Refuse(name, absl::StrCat("only \"", wanted,
                                                            "\" is supported"));
}

// Those that draw A and B alone; the others change the base model, and the
// file does not say how.
absl::Status CheckInitialization(const JsonFields& fields) {
  constexpr absl::string_view kName = "init_lora_weights";
  const Json* value = fields.Find(kName);
  if (value == nullptr || value->is_boolean() || *value == "gaussian" ||
      *value == "eva" || *value == "orthogonal") {
    return absl::OkStatus();
  }
  return fields.Refuse(kName,
                       "the base model was changed with it, which is "
                       "not supported");
}

absl::Status RefuseWhatIsNotHonoured(const Json& json,
                                     const JsonFields& fields) {
  for (const auto& item : json.items()) {
    if (!IsKnown(item.key()) && !IsEmpty(item.value())) {
      return fields.Refuse(item.key(), "it is not supported");
    }
  }
  LORICA_RETURN_IF_ERROR(RequireText(fields, "peft_type", "LORA"));
  LORICA_RETURN_IF_ERROR(RequireText(fields, "bias", "none"));
  return CheckInitialization(fields);
}

template <typename Value>
absl::Status ReadPatterns(const JsonFields& fields, absl::string_view name,
                          std::map<std::string, Value>* patterns) {
  const Json* object = fields.Find(name);
  if (object == nullptr) {
    return absl::OkStatus();
  }
  LORICA_ASSIGN_OR_RETURN(
      const JsonFields entries,
      JsonFields::Of(*object, absl::StrCat(fields.place(), ": ", name)));
  for (const auto& item : object->items()) {
    LORICA_RETURN_IF_ERROR(
        entries.Require(item.key(), &(*patterns)[item.key()]));
  }
  return absl::OkStatus();
}

absl::Status ReadTargets(const JsonFields& fields, PeftConfig* config) {
  constexpr absl::string_view kName = "target_modules";
  const Json* targets = fields.Find(kName);
  if (targets == nullptr) {
    return fields.Refuse(kName, "a list of modules is needed");
  }
  for (const absl::string_view picked :
       {"exclude_modules", "layers_to_transform", "layers_pattern"}) {
    const Json* value = fields.Find(picked);
    config->modules_from_file |= value != nullptr && !IsEmpty(*value);
  }
  if (!targets->is_string()) {
    return fields.Read(kName, &config->lora.targets);
  }
  config->lora.targets = {targets->get<std::string>()};
  config->modules_from_file |= config->lora.targets[0] != "all-linear";
  return absl::OkStatus();
}

// The decimal a float was written as, not the double nearest to the float.
double Decimal(float value) {
  double decimal = 0;
  return absl::SimpleAtod(absl::StrCat(value), &decimal) ? decimal : value;
}

// PEFT declares alpha an integer and takes any number.
Json Number(double value) {
  const bool whole = std::floor(value) == value && std::abs(value) < 1e9;
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

// Whether PEFT's (.*\\.)?(pattern)$ matches `module` from its beginning.
absl::StatusOr<bool> PeftMatches(const std::string& pattern,
                                 const std::string& module) {
  const std::string whole = absl::StrCat("(.*\\.)?(", pattern, ")");
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(whole.data()), whole.size(),
      PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF, &error, &offset, nullptr);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern ", pattern, " is not a regular expression"));
  }
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  const int found =
      pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(module.data()),
                  module.size(), 0, 0, match, nullptr);
  pcre2_match_data_free(match);
  pcre2_code_free(code);
  if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the pattern ", pattern, " cannot be matched with ", module));
  }
  return found >= 0;
}

}  // namespace

absl::StatusOr<PeftConfig> PeftConfigFromJson(const Json& json,
                                              const std::string& place) {
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, place));
  LORICA_RETURN_IF_ERROR(RefuseWhatIsNotHonoured(json, fields));
  PeftConfig config;
  LoraConfig& lora = config.lora;
  LORICA_RETURN_IF_ERROR(
      fields.Read("base_model_name_or_path", &config.base_model));
  // PEFT's defaults.
  lora.rank = 8;
  lora.alpha = 8.0;
  LORICA_RETURN_IF_ERROR(fields.Read("r", &lora.rank));
  LORICA_RETURN_IF_ERROR(fields.Read("lora_alpha", &lora.alpha));
  if (lora.rank < 1) {
    return fields.Refuse("r", "it must be at least 1");
  }
  LORICA_RETURN_IF_ERROR(fields.Read("fan_in_fan_out", &lora.fan_in_fan_out));
  double dropout = 0.0;
  LORICA_RETURN_IF_ERROR(fields.Read("lora_dropout", &dropout));
  lora.dropout = static_cast<float>(dropout);
  if (!(lora.dropout >= 0.0f && lora.dropout < 1.0f)) {
    return fields.Refuse("lora_dropout", "it must be in [0, 1)");
  }
  bool stabilized = false;
  LORICA_RETURN_IF_ERROR(fields.Read("use_rslora", &stabilized));
  lora.scaling =
      stabilized ? LoraScaling::kRankStabilized : LoraScaling::kStandard;
  LORICA_RETURN_IF_ERROR(
      ReadPatterns(fields, "rank_pattern", &lora.rank_pattern));
  LORICA_RETURN_IF_ERROR(
      ReadPatterns(fields, "alpha_pattern", &lora.alpha_pattern));
  LORICA_RETURN_IF_ERROR(ReadTargets(fields, &config));
  return config;
}

Json PeftConfigToJson(const LoraConfig& lora, const std::string& base_model) {
  const bool all = lora.targets.size() == 1 && lora.targets[0] == "all-linear";
  Json alphas = Json::object();
  for (const auto& [pattern, alpha] : lora.alpha_pattern) {
    alphas[pattern] = Number(alpha);
  }
  return {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path",
       base_model.empty() ? Json() : Json(base_model)},
      {"revision", nullptr},
      {"auto_mapping", nullptr},
      {"inference_mode", true},
      {"r", lora.rank},
      {"lora_alpha", Number(lora.alpha)},
      {"lora_dropout", Decimal(lora.dropout)},
      {"target_modules", all ? Json("all-linear") : Json(lora.targets)},
      {"fan_in_fan_out", lora.fan_in_fan_out},
      {"bias", "none"},
      {"modules_to_save", nullptr},
      {"init_lora_weights", true},
      {"rank_pattern", Json(lora.rank_pattern)},
      {"alpha_pattern", alphas},
      {"use_rslora", lora.scaling == LoraScaling::kRankStabilized},
      {"use_dora", false},
      {"layers_to_transform", nullptr},
      {"layers_pattern", nullptr},
  };
}

template <typename Value>
absl::StatusOr<const Value*> FindPeftPattern(
    const std::map<std::string, Value>& patterns, const std::string& module) {
  for (const auto& [pattern, value] : patterns) {
    LORICA_ASSIGN_OR_RETURN(const bool matches, PeftMatches(pattern, module));
    if (matches) {
      return &value;
    }
  }
  return nullptr;
}

template absl::StatusOr<const int64_t*> FindPeftPattern(
    const std::map<std::string, int64_t>&, const std::string&);
template absl::StatusOr<const double*> FindPeftPattern(
    const std::map<std::string, double>&, const std::string&);

}  // namespace lorica
