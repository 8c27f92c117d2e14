// adapter_config.json: PEFT's words for a LoraConfig.
#ifndef LORICA_MODEL_PEFT_CONFIG_H_
#define LORICA_MODEL_PEFT_CONFIG_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "model/lora_config.h"
#include "runtime/files/json.h"

namespace lorica {

struct PeftConfig {
  // As written: patterns are regular expressions, not yet one entry a module.
  LoraConfig lora;
  std::string base_model;
  // The adapted modules are those the file has factors for: the targets are a
  // regular expression, or layers are picked.
  bool modules_from_file = false;
};

// See ReadPeftAdapter for what is refused. `place` is the file's path.
absl::StatusOr<PeftConfig> PeftConfigFromJson(const Json& json,
                                              const std::string& place);

// Only the keys that PEFT has always known: older versions reject others.
Json PeftConfigToJson(const LoraConfig& lora, const std::string& base_model);

// The value of the first pattern that PEFT would apply to `module`, or null. An
// error names a pattern that is no regular expression.
template <typename Value>
absl::StatusOr<const Value*> FindPeftPattern(
    const std::map<std::string, Value>& patterns, const std::string& module);

}  // namespace lorica

#endif  // LORICA_MODEL_PEFT_CONFIG_H_
