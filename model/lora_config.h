// What is adapted: PEFT's words and rules.
#ifndef LORICA_MODEL_LORA_CONFIG_H_
#define LORICA_MODEL_LORA_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/params.h"

namespace lorica {

// alpha / r, or alpha / sqrt(r) (Kalajdzievski 2023).
enum class LoraScaling : uint8_t { kStandard, kRankStabilized };

struct LoraConfig {
  int64_t rank = 8;
  double alpha = 16.0;
  float dropout = 0.0f;  // In [0, 1): of the adapters' input.
  LoraScaling scaling = LoraScaling::kStandard;
  // A module is adapted if its path is a target or ends in "." and a target;
  // the single target "all-linear" names every linear layer but the head.
  std::vector<std::string> targets;
  // Exceptions by module, matched like targets.
  std::map<std::string, int64_t> rank_pattern;
  std::map<std::string, double> alpha_pattern;
  // PEFT's word for a base model whose weights are [in, out]; the adapter's are
  // the same. It follows from the model and goes into files for PEFT.
  bool fan_in_fan_out = false;
};

struct LoraModule {
  LinearSpec linear;
  int64_t rank = 0;
  double alpha = 0.0;
  float scale = 0.0f;
};

// The adapted modules in the order of the layers. Errors: a target that
// matches nothing (the names that exist are listed), a rank below 1 or above
// the matrix's smaller side, a dropout outside [0, 1).
absl::StatusOr<std::vector<LoraModule>> ResolveTargets(const GptConfig& config,
                                                       const ModelSplit& split,
                                                       const LoraConfig& lora);

}  // namespace lorica

#endif  // LORICA_MODEL_LORA_CONFIG_H_
