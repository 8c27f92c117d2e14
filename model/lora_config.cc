#include "model/lora_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

bool Matches(const std::string& module, const std::string& target) {
  return module == target || absl::EndsWith(module, "." + target);
}

// The value of the first pattern that names `module`.
template <typename Value>
std::optional<Value> FindPattern(const std::map<std::string, Value>& patterns,
                                 const std::string& module) {
  for (const auto& [pattern, value] : patterns) {
    if (Matches(module, pattern)) return value;
  }
  return std::nullopt;
}

absl::Status NoMatch(const std::string& target,
                     const std::vector<LinearSpec>& linears) {
  std::vector<std::string> names;
  for (const LinearSpec& linear : linears) {
    std::string name = linear.module.substr(linear.module.rfind('.') + 1);
    // The attention and the MLP of a block may have one of the same name.
    if (!absl::c_linear_search(names, name)) names.push_back(std::move(name));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("adapter.target \"", target,
                   "\" matches no linear layer of the model; there are ",
                   absl::StrJoin(names, ", "), " and all-linear"));
}

absl::StatusOr<LoraModule> Adapt(const LinearSpec& linear,
                                 const LoraConfig& lora) {
  const std::optional<int64_t> rank =
      FindPattern(lora.rank_pattern, linear.module);
  const std::optional<double> alpha =
      FindPattern(lora.alpha_pattern, linear.module);
  LoraModule module = {.linear = linear,
                       .rank = rank.value_or(lora.rank),
                       .alpha = alpha.value_or(lora.alpha)};
  const int64_t limit = std::min(linear.shape[0], linear.shape[1]);
  if (module.rank < 1 || module.rank > limit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "adapter.rank is ", module.rank, "; ", linear.module, " is ",
        linear.shape.ToString(), " and takes 1 to ", limit));
  }
  const double r = static_cast<double>(module.rank);
  module.scale = static_cast<float>(
      module.alpha /
      (lora.scaling == LoraScaling::kStandard ? r : std::sqrt(r)));
  return module;
}

}  // namespace

absl::StatusOr<std::vector<LoraModule>> ResolveTargets(const GptConfig& config,
                                                       const ModelSplit& split,
                                                       const LoraConfig& lora) {
  if (!(lora.dropout >= 0.0f && lora.dropout < 1.0f)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "adapter.dropout is ", lora.dropout, "; it must be in [0, 1)"));
  }
  if (lora.targets.empty()) {
    return absl::InvalidArgumentError(
        "adapter.target is empty; name modules such as q_proj, or all-linear");
  }
  const bool all = lora.targets.size() == 1 && lora.targets[0] == "all-linear";
  std::set<std::string> unmatched(lora.targets.begin(), lora.targets.end());
  std::vector<LoraModule> modules;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const LinearSpec& linear : LinearsOfLayer(config, split, layer)) {
      bool adapted = all;
      for (const std::string& target : lora.targets) {
        if (Matches(linear.module, target)) {
          unmatched.erase(target);
          adapted = true;
        }
      }
      if (!adapted) continue;
      LORICA_ASSIGN_OR_RETURN(LoraModule module, Adapt(linear, lora));
      modules.push_back(std::move(module));
    }
  }
  if (!all && !unmatched.empty()) {
    return NoMatch(*unmatched.begin(), LinearsOfLayer(config, split, 0));
  }
  return modules;
}

}  // namespace lorica
