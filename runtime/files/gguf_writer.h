// Writes GGUF files, version 3; gguf.h reads them.
#ifndef LORICA_RUNTIME_FILES_GGUF_WRITER_H_
#define LORICA_RUNTIME_FILES_GGUF_WRITER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

using GgufScalar = std::variant<std::string, uint32_t, float>;
using GgufPair = std::pair<std::string, GgufScalar>;

// A tensor to be written, and its elements as `type` stores them.
struct GgufData {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;  // Row-major; the file's order is the reverse.
  absl::string_view bytes;
};

// Puts a file in place whole: pairs and tensors in the order given, elements
// aligned to 32 bytes. Its bytes are a function of the arguments alone. Errors:
// what ggml cannot read (a name of more than 63 bytes, more than 4 dimensions,
// a type without a number, a name twice), and those of the file system.
absl::Status WriteGguf(const std::string& path,
                       absl::Span<const GgufPair> pairs,
                       absl::Span<const GgufData> tensors);

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_GGUF_WRITER_H_
