#include "model/peft_adapter.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "model/peft_config.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/block_decode.h"
#include "runtime/files/element_encode.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"
#include "runtime/shape.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr absl::string_view kPrefix = "base_model.model.";
constexpr absl::string_view kA = ".lora_A.weight";
constexpr absl::string_view kB = ".lora_B.weight";

std::string ConfigPath(const std::string& directory) {
  return absl::StrCat(directory, "/adapter_config.json");
}

std::string TensorsPath(const std::string& directory) {
  return absl::StrCat(directory, "/adapter_model.safetensors");
}

std::string KeyOf(absl::string_view module, absl::string_view suffix) {
  return absl::StrCat(kPrefix, module, suffix);
}

absl::Status AboutTensor(const std::string& path, absl::string_view name,
                         absl::string_view reason) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": tensor ", name, " ", reason));
}

absl::StatusOr<std::vector<float>> ReadFactor(const StoredTensor& tensor) {
  const std::string& path = tensor.file->path();
  if (tensor.shape.size() != 2) {
    return AboutTensor(path, tensor.name,
                       absl::StrCat("is ", ShapeToString(tensor.shape),
                                    "; a matrix is needed"));
  }
  if (!CanDecode(tensor.type)) {
    return AboutTensor(path, tensor.name,
                       absl::StrCat("is ", NameOf(tensor.type),
                                    "; F32, BF16 and F16 can be read"));
  }
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DecodeRow(tensor.type, tensor.bytes.data(), {0, tensor.elements()},
            values.data());
  return values;
}

// The module whose A or B the tensor is, or "".
std::string ModuleOf(absl::string_view name, absl::string_view suffix) {
  return absl::ConsumePrefix(&name, kPrefix) &&
                 absl::ConsumeSuffix(&name, suffix)
             ? std::string(name)
             : "";
}

absl::StatusOr<PeftFactors> ReadModule(const StoredTensor& a,
                                       const StoredTensor& b) {
  PeftFactors factors;
  LORICA_ASSIGN_OR_RETURN(factors.a, ReadFactor(a));
  LORICA_ASSIGN_OR_RETURN(factors.b, ReadFactor(b));
  factors.rank = a.shape[0];
  factors.inputs = a.shape[1];
  factors.outputs = b.shape[0];
  if (b.shape[1] != factors.rank) {
    return AboutTensor(
        b.file->path(), b.name,
        absl::StrCat("is ", ShapeToString(b.shape), ", its lora_A ",
                     ShapeToString(a.shape), "; the ranks differ"));
  }
  return factors;
}

absl::StatusOr<std::map<std::string, PeftFactors>> ReadModules(
    const TensorTable& tensors, const std::string& path) {
  std::map<std::string, PeftFactors> modules;
  for (const auto& [name, tensor] : tensors) {
    const std::string of_a = ModuleOf(name, kA);
    const std::string of_b = ModuleOf(name, kB);
    if (of_a.empty() && of_b.empty()) {
      return AboutTensor(path, name,
                         "is neither lora_A.weight nor lora_B.weight of a "
                         "module under base_model.model");
    }
    const std::string& module = of_a.empty() ? of_b : of_a;
    const std::string other = KeyOf(module, of_a.empty() ? kA : kB);
    const auto found = tensors.find(other);
    if (found == tensors.end()) {
      return AboutTensor(path, other,
                         absl::StrCat("is missing; ", name, " is there"));
    }
    if (!of_a.empty()) {
      LORICA_ASSIGN_OR_RETURN(modules[module],
                              ReadModule(tensor, found->second));
    }
  }
  return modules;
}

// Replaces regular expressions by the modules of `modules` that they name.
template <typename Value>
absl::Status Expand(const std::map<std::string, PeftFactors>& modules,
                    std::map<std::string, Value>* patterns) {
  std::map<std::string, Value> expanded;
  for (const auto& [module, factors] : modules) {
    LORICA_ASSIGN_OR_RETURN(const Value* value,
                            FindPeftPattern(*patterns, module));
    if (value != nullptr) {
      expanded[module] = *value;
    }
  }
  *patterns = std::move(expanded);
  return absl::OkStatus();
}

bool IsTarget(const std::string& module,
              const std::vector<std::string>& targets) {
  return std::any_of(targets.begin(), targets.end(),
                     [&](const std::string& target) {
                       return target == "all-linear" || module == target ||
                              absl::EndsWith(module, "." + target);
                     });
}

// That the tensors are those the configuration speaks of.
absl::Status CheckModules(const PeftAdapter& adapter, const std::string& path) {
  for (const auto& [module, factors] : adapter.modules) {
    if (!IsTarget(module, adapter.lora.targets)) {
      return AboutTensor(
          path, KeyOf(module, kA),
          absl::StrCat("is unexpected: target_modules are ",
                       absl::StrJoin(adapter.lora.targets, ", ")));
    }
    const auto pattern = adapter.lora.rank_pattern.find(module);
    const int64_t rank = pattern == adapter.lora.rank_pattern.end()
                             ? adapter.lora.rank
                             : pattern->second;
    if (factors.rank != rank) {
      return AboutTensor(path, KeyOf(module, kA),
                         absl::StrCat("has rank ", factors.rank,
                                      "; adapter_config.json makes it ", rank));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PeftAdapter> ReadPeftAdapter(const std::string& directory) {
  const std::string config_path = ConfigPath(directory);
  LORICA_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(config_path));
  LORICA_ASSIGN_OR_RETURN(PeftConfig config,
                          PeftConfigFromJson(json, config_path));
  const std::string path = TensorsPath(directory);
  LORICA_ASSIGN_OR_RETURN(const Safetensors file, ReadSafetensors(path));
  PeftAdapter adapter{.lora = std::move(config.lora),
                      .base_model = std::move(config.base_model)};
  LORICA_ASSIGN_OR_RETURN(adapter.modules, ReadModules(file.tensors, path));
  if (adapter.modules.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds no tensor"));
  }
  LORICA_RETURN_IF_ERROR(Expand(adapter.modules, &adapter.lora.rank_pattern));
  LORICA_RETURN_IF_ERROR(Expand(adapter.modules, &adapter.lora.alpha_pattern));
  if (config.modules_from_file) {
    adapter.lora.targets.clear();
    for (const auto& [module, factors] : adapter.modules) {
      adapter.lora.targets.push_back(module);
    }
  }
  LORICA_RETURN_IF_ERROR(CheckModules(adapter, path));
  return adapter;
}

absl::Status CheckPeftAdapter(const PeftAdapter& adapter,
                              absl::Span<const LoraModule> modules,
                              const std::string& directory) {
  // PEFT itself takes false for true where the weights are [in, out].
  const bool as_is =
      !modules.empty() && modules[0].linear.file_order == FileOrder::kAsIs;
  if (adapter.lora.fan_in_fan_out && as_is) {
    return absl::InvalidArgumentError(
        absl::StrCat(ConfigPath(directory),
                     ": fan_in_fan_out is true; only false is supported for "
                     "this model, whose weights are [out, in]"));
  }
  const std::string path = TensorsPath(directory);
  std::set<std::string> expected;
  for (const LoraModule& module : modules) {
    const std::string& name = module.linear.module;
    expected.insert(name);
    const auto found = adapter.modules.find(name);
    if (found == adapter.modules.end()) {
      return AboutTensor(path, KeyOf(name, kA), "is missing");
    }
    const PeftFactors& factors = found->second;
    const Shape shape = {factors.outputs, factors.inputs};
    if (!(shape == module.linear.shape)) {
      return AboutTensor(
          path, KeyOf(name, kA),
          absl::StrCat("and its lora_B adapt a weight of ", shape.ToString(),
                       "; the model's is ", module.linear.shape.ToString()));
    }
    if (factors.rank != module.rank) {
      return AboutTensor(path, KeyOf(name, kA),
                         absl::StrCat("has rank ", factors.rank, "; ",
                                      module.rank, " is needed"));
    }
  }
  for (const auto& [name, factors] : adapter.modules) {
    if (expected.count(name) == 0) {
      return AboutTensor(path, KeyOf(name, kA),
                         "adapts a module that the model does not have");
    }
  }
  return absl::OkStatus();
}

absl::Status WritePeftFiles(const std::string& directory,
                            const PeftAdapter& adapter, StoredType type) {
  std::deque<std::string> elements;  // Stay where they are.
  std::vector<SafetensorsData> tensors;
  const auto add = [&](const std::string& key, std::vector<int64_t> shape,
                       const std::vector<float>& values) -> absl::Status {
    LORICA_ASSIGN_OR_RETURN(std::string bytes, EncodeTensor(key, type, values));
    elements.push_back(std::move(bytes));
    tensors.push_back({{key, type, std::move(shape)}, elements.back()});
    return absl::OkStatus();
  };
  for (const auto& [module, factors] : adapter.modules) {
    LORICA_RETURN_IF_ERROR(
        add(KeyOf(module, kA), {factors.rank, factors.inputs}, factors.a));
    LORICA_RETURN_IF_ERROR(
        add(KeyOf(module, kB), {factors.outputs, factors.rank}, factors.b));
  }
  LORICA_RETURN_IF_ERROR(
      WriteSafetensors(TensorsPath(directory), tensors, {{"format", "pt"}}));
  const Json config = PeftConfigToJson(adapter.lora, adapter.base_model);
  // A path may hold bytes that are not UTF-8: they are replaced.
  return WriteFileAtomically(
      ConfigPath(directory),
      config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

absl::Status WritePeftAdapter(const std::string& directory,
                              const PeftAdapter& adapter, StoredType type) {
  LORICA_ASSIGN_OR_RETURN(AtomicDirectory target,
                          AtomicDirectory::Create(directory));
  LORICA_RETURN_IF_ERROR(WritePeftFiles(target.partial(), adapter, type));
  return target.Commit();
}

}  // namespace lorica
