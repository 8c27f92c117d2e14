// The frozen weights of a model on disk, by the slice.
#ifndef LORICA_MODEL_WEIGHT_SOURCE_H_
#define LORICA_MODEL_WEIGHT_SOURCE_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/families/stored_weight.h"
#include "model/gpt_config.h"
#include "parallel/shard_spec.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

namespace lorica {

// A Hugging Face directory or a GGUF file. Opening reads the headers alone; it
// refuses a model that cannot be expressed, and weights that are missing,
// superfluous, of another shape than the model's or of a type that cannot be
// decoded: what opened, loads.
class WeightSource {
 public:
  static absl::StatusOr<WeightSource> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const GptConfig& config() const { return config_; }
  // Exactly the frozen parameters of config(), under their Hugging Face names.
  const StoredWeights& weights() const { return weights_; }

  // Rows and columns `slice` of the weight as a dense tensor of kF32 or kBF16.
  // Whole rows that the file holds in that type, in order and aligned, are
  // borrowed from the mapped file where the device can read it; the rest is
  // decoded with all threads, and costs memory for the result alone; of a file
  // that holds the transpose, a few megabytes more.
  Tensor Load(const std::string& name, const Slice& slice, DType dtype,
              Device* device) const;

 private:
  absl::Status OpenDirectory();
  absl::Status OpenGguf();
  absl::Status CheckWeights();

  std::string path_;
  GptConfig config_;
  StoredWeights weights_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_WEIGHT_SOURCE_H_
