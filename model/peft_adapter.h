// Adapters as Hugging Face PEFT keeps them: a directory of
// adapter_config.json and adapter_model.safetensors.
#ifndef LORICA_MODEL_PEFT_ADAPTER_H_
#define LORICA_MODEL_PEFT_ADAPTER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/lora_config.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// The factors of one module, row-major, on the host.
struct PeftFactors {
  int64_t rank = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
  std::vector<float> a;  // [rank, inputs]
  std::vector<float> b;  // [outputs, rank]
};

struct PeftAdapter {
  LoraConfig lora;
  std::string base_model;  // Path or name, as in adapter_config.json.
  // By module path, "model.layers.3.self_attn.q_proj".
  std::map<std::string, PeftFactors> modules;
};

// What cannot be honoured is refused by key and value: DoRA, biases, modules
// saved whole, initializations that change the base model, and any key unknown
// here that is not null, false or empty. Every tensor must be an A or B of a
// module that the targets name, in pairs and of the rank the patterns give it;
// F32, BF16 and F16 are read. Where target_modules is a regular expression or
// layers are picked, lora.targets lists the modules found; patterns become one
// entry a module.
absl::StatusOr<PeftAdapter> ReadPeftAdapter(const std::string& directory);

// That the adapter has exactly the factors that `modules`, resolved from its
// own configuration, need. `directory` is named in errors.
absl::Status CheckPeftAdapter(const PeftAdapter& adapter,
                              absl::Span<const LoraModule> modules,
                              const std::string& directory);

// Writes both files into an existing directory, each atomically. The factors
// are rounded to `type`: F32, BF16 or F16. Errors: a value that it cannot hold;
// writing.
absl::Status WritePeftFiles(const std::string& directory,
                            const PeftAdapter& adapter,
                            StoredType type = StoredType::kF32);

// Puts a directory in place whole, replacing one of that name.
absl::Status WritePeftAdapter(const std::string& directory,
                              const PeftAdapter& adapter,
                              StoredType type = StoredType::kF32);

}  // namespace lorica

#endif  // LORICA_MODEL_PEFT_ADAPTER_H_
