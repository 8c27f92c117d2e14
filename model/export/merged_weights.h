// The weights of a model with an adapter folded in, as Hugging Face keeps them.
#ifndef LORICA_MODEL_EXPORT_MERGED_WEIGHTS_H_
#define LORICA_MODEL_EXPORT_MERGED_WEIGHTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/peft_adapter.h"
#include "model/weight_source.h"
#include "runtime/files/stored_tensor.h"
#include "runtime/shape.h"

namespace lorica {

// W + s B A for every adapted weight, W for the others. Read by the row, so
// nothing of the model's size is ever in memory.
class MergedWeights {
 public:
  // `source` and `adapter` must outlive the result; a null adapter changes
  // nothing. Error: the adapter is not one of this model; `directory` names it.
  static absl::StatusOr<MergedWeights> Create(const WeightSource* source,
                                              const PeftAdapter* adapter,
                                              const std::string& directory);

  const WeightSource& source() const { return *source_; }
  // Whether the weight of that Hugging Face name changes.
  bool Adapts(const std::string& name) const;
  // Rows of the weight as Hugging Face's files hold it (a vector is one row),
  // row-major: W, decoded to F32, and s B A summed in double.
  std::vector<double> Rows(const std::string& name, Range rows) const;

 private:
  MergedWeights(const WeightSource* source, const PeftAdapter* adapter)
      : source_(source), adapter_(adapter) {}

  const WeightSource* source_;
  const PeftAdapter* adapter_;
};

// How far elements lie from what they stand for.
struct ErrorStatistic {
  int64_t elements = 0;
  double largest = 0;
  double squares = 0;

  void Add(const ErrorStatistic& other);
  double rms() const;
};

struct MergedTensor {
  std::string name;
  std::vector<int64_t> shape;
  bool adapted = false;
  // The stored elements against W + s B A in double.
  ErrorStatistic rounding;
  // The stored elements against the expected weights, where these are given.
  std::optional<ErrorStatistic> against_expected;
};

struct MergedFiles {
  std::vector<MergedTensor> tensors;  // As written.
  std::vector<std::string> files;     // Names in the directory.
  int64_t bytes = 0;                  // Of all elements.
};

// Writes the safetensors of a Hugging Face directory: one file, or, where the
// source has several, files of the same names and their index. W + s B A
// is summed in double, rounded to F32 and then to `type`, F32, BF16 or F16.
// Whatever its size, the model passes through a few megabytes of memory.
// `expected` may be null; it must be of a model of the same shape. Errors: a
// value that `type` cannot hold, with its tensor; writing.
absl::StatusOr<MergedFiles> WriteMergedWeights(const std::string& directory,
                                               const MergedWeights& weights,
                                               StoredType type,
                                               const MergedWeights* expected);

}  // namespace lorica

#endif  // LORICA_MODEL_EXPORT_MERGED_WEIGHTS_H_
