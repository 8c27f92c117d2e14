// The expected values of tests/golden, as tests read them.
#ifndef LORICA_TESTS_SUPPORT_GOLDEN_H_
#define LORICA_TESTS_SUPPORT_GOLDEN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/lora_config.h"
#include "model/token_batch.h"
#include "runtime/files/json.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// A folder of tests/golden with a tiny Llama model.
class Golden {
 public:
  explicit Golden(const std::string& folder);

  std::string model_path() const { return path_ + "/model"; }
  // "adapter_qv" or "adapter_all".
  std::string adapter_path(const std::string& name) const {
    return path_ + "/" + name;
  }
  // A micro-batch of batch.safetensors or curve_batch.safetensors.
  std::vector<TokenBatch> micro_batches(const std::string& file) const;
  // Of expected.safetensors.
  std::vector<float> expected(const std::string& name) const;
  const Json& settings() const { return settings_; }

 private:
  std::string path_;
  TensorTable expected_;
  Json settings_;
};

// Elements of an F32 tensor.
std::vector<float> FloatsOf(const TensorTable& table, const std::string& name);

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_GOLDEN_H_
