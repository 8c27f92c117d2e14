// The container of llama.cpp and its kin: typed values, then tensors.
#ifndef LORICA_RUNTIME_FILES_GGUF_H_
#define LORICA_RUNTIME_FILES_GGUF_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// Integers of every width are int64_t, floats of both are double; the bools of
// a list are integers.
using GgufValue =
    std::variant<bool, int64_t, double, std::string, std::vector<int64_t>,
                 std::vector<double>, std::vector<std::string>>;

class GgufFile {
 public:
  // Versions 2 and 3, little-endian. Checks every count, length and offset
  // against the file before it is used, that no key or tensor comes twice and
  // that no tensors overlap. Reads no element.
  static absl::StatusOr<GgufFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, GgufValue, std::less<>>& values() const {
    return values_;
  }
  // Shapes are row-major, so the reverse of the file's.
  const TensorTable& tensors() const { return tensors_; }

  bool Has(absl::string_view key) const {
    return values_.find(key) != values_.end();
  }
  // An absent key leaves `value` as it is; one of another type is an error
  // naming file and key. An integer is a double too.
  absl::Status Read(absl::string_view key, bool* value) const;
  absl::Status Read(absl::string_view key, int64_t* value) const;
  absl::Status Read(absl::string_view key, double* value) const;
  absl::Status Read(absl::string_view key, std::string* value) const;
  absl::Status Read(absl::string_view key, std::vector<int64_t>* value) const;
  absl::Status Read(absl::string_view key, std::vector<double>* value) const;
  absl::Status Read(absl::string_view key,
                    std::vector<std::string>* value) const;

  // As Read, but an absent key is an error.
  template <typename T>
  absl::Status Require(absl::string_view key, T* value) const {
    return Has(key) ? Read(key, value) : Missing(key);
  }

 private:
  template <typename T>
  absl::Status ReadAs(absl::string_view key, absl::string_view wanted,
                      T* value) const;
  absl::Status Missing(absl::string_view key) const;

  std::string path_;
  std::map<std::string, GgufValue, std::less<>> values_;
  TensorTable tensors_;
};

// Values as text, for listings: lists and long strings abbreviated.
std::string GgufValueToString(const GgufValue& value);

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_GGUF_H_
