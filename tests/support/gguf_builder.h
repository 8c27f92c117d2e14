// GGUF files for tests, byte by byte.
#ifndef LORICA_TESTS_SUPPORT_GGUF_BUILDER_H_
#define LORICA_TESTS_SUPPORT_GGUF_BUILDER_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/files/stored_tensor.h"

namespace lorica {

template <typename T>
std::string BytesOfValue(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string GgufString(const std::string& text) {
  return BytesOfValue<uint64_t>(text.size()) + text;
}

class GgufBuilder {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;  // Announce it with U32("general.alignment", ...).

  void Bool(const std::string& key, bool value) {
    Raw(key, 7, BytesOfValue<uint8_t>(value));
  }
  void U32(const std::string& key, uint32_t value) {
    Raw(key, 4, BytesOfValue(value));
  }
  void F32(const std::string& key, float value) {
    Raw(key, 6, BytesOfValue(value));
  }
  void String(const std::string& key, const std::string& value) {
    Raw(key, 8, GgufString(value));
  }
  void Strings(const std::string& key, const std::vector<std::string>& values) {
    std::string items;
    for (const std::string& value : values) {
      items += GgufString(value);
    }
    List(key, 8, values.size(), items);
  }
  void List(const std::string& key, uint32_t type, uint64_t count,
            const std::string& items) {
    Raw(key, 9, BytesOfValue(type) + BytesOfValue(count) + items);
  }
  // A value of any type, valid or not.
  void Raw(const std::string& key, uint32_t type, const std::string& bytes) {
    values_ += GgufString(key) + BytesOfValue(type) + bytes;
    ++num_values_;
  }

  // `shape` is row-major; the file's order is the reverse.
  void Tensor(const std::string& name, StoredType type,
              std::vector<int64_t> shape, const std::string& bytes) {
    TensorAt(name, static_cast<uint32_t>(InfoOf(type).ggml_id),
             std::move(shape), data_.size());
    data_ += bytes;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  }
  // Only the announcement, valid or not.
  void TensorAt(const std::string& name, uint32_t type,
                std::vector<int64_t> shape, uint64_t offset) {
    infos_ +=
        GgufString(name) + BytesOfValue(static_cast<uint32_t>(shape.size()));
    for (auto dim = shape.rbegin(); dim != shape.rend(); ++dim) {
      infos_ += BytesOfValue(*dim);
    }
    infos_ += BytesOfValue(type) + BytesOfValue(offset);
    ++num_tensors_;
  }

  std::string Build() const {
    std::string file = "GGUF" + BytesOfValue(version) +
                       BytesOfValue(num_tensors_) + BytesOfValue(num_values_) +
                       values_ + infos_;
    file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data_;
  }

 private:
  std::string values_;
  std::string infos_;
  std::string data_;
  uint64_t num_values_ = 0;
  uint64_t num_tensors_ = 0;
};

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_GGUF_BUILDER_H_
