#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/files/gguf.h"

namespace lorica {

absl::Status GgufFile::Missing(absl::string_view key) const {
  return absl::InvalidArgumentError(
      absl::StrCat(path_, ": ", key, " is missing"));
}

template <typename T>
absl::Status GgufFile::ReadAs(absl::string_view key, absl::string_view wanted,
                              T* value) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return absl::OkStatus();
  const T* held = std::get_if<T>(&found->second);
  if (held == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", key, " is ", GgufValueToString(found->second),
                     "; ", wanted, " is needed"));
  }
  *value = *held;
  return absl::OkStatus();
}

absl::Status GgufFile::Read(absl::string_view key, bool* value) const {
  return ReadAs(key, "true or false", value);
}

absl::Status GgufFile::Read(absl::string_view key, int64_t* value) const {
  return ReadAs(key, "an integer", value);
}

absl::Status GgufFile::Read(absl::string_view key, double* value) const {
  const auto found = values_.find(key);
  if (found != values_.end()) {
    if (const auto* integer = std::get_if<int64_t>(&found->second)) {
      *value = static_cast<double>(*integer);
      return absl::OkStatus();
    }
  }
  return ReadAs(key, "a number", value);
}

absl::Status GgufFile::Read(absl::string_view key, std::string* value) const {
  return ReadAs(key, "a string", value);
}

absl::Status GgufFile::Read(absl::string_view key,
                            std::vector<int64_t>* value) const {
  return ReadAs(key, "a list of integers", value);
}

absl::Status GgufFile::Read(absl::string_view key,
                            std::vector<double>* value) const {
  return ReadAs(key, "a list of numbers", value);
}

absl::Status GgufFile::Read(absl::string_view key,
                            std::vector<std::string>* value) const {
  return ReadAs(key, "a list of strings", value);
}

std::string GgufValueToString(const GgufValue& value) {
  constexpr size_t kLongest = 60;
  if (const auto* yes = std::get_if<bool>(&value)) {
    return *yes ? "true" : "false";
  }
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    return absl::StrCat(*integer);
  }
  if (const auto* number = std::get_if<double>(&value)) {
    return absl::StrCat(*number);
  }
  if (const auto* text = std::get_if<std::string>(&value)) {
    const absl::string_view head = absl::string_view(*text).substr(0, kLongest);
    return absl::StrCat("\"", absl::Utf8SafeCHexEscape(head),
                        text->size() > kLongest ? "...\"" : "\"");
  }
  if (const auto* integers = std::get_if<std::vector<int64_t>>(&value)) {
    return absl::StrCat("a list of ", integers->size(), " integers");
  }
  if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
    return absl::StrCat("a list of ", numbers->size(), " numbers");
  }
  return absl::StrCat("a list of ",
                      std::get<std::vector<std::string>>(value).size(),
                      " strings");
}

}  // namespace lorica
