// What a container file says of its tensors: name, element type, shape, bytes.
#ifndef LORICA_RUNTIME_FILES_STORED_TENSOR_H_
#define LORICA_RUNTIME_FILES_STORED_TENSOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/files/mapped_file.h"

namespace lorica {

// How a file stores elements: the types of safetensors and those of GGML, most
// of which can only be listed. block_decode.h says which can be read.
enum class StoredType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kI16,
  kI32,
  kI64,
  kU8,
  kU16,
  kU32,
  kU64,
  kBool,
  kC64,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2K,
  kQ3K,
  kQ4K,
  kQ5K,
  kQ6K,
  kIq4Nl,
  kIq4Xs,
};

// Elements lie in blocks, `block_elements` to `block_bytes`. Quantized rows
// hold whole blocks.
struct StoredTypeInfo {
  StoredType type;
  const char* name;
  int64_t block_elements;
  int64_t block_bytes;
  int ggml_id;  // The type's number in GGUF, or -1.
};

const StoredTypeInfo& InfoOf(StoredType type);
const char* NameOf(StoredType type);
std::ostream& operator<<(std::ostream& out, StoredType type);
// By the name in a safetensors header, or by GGUF number.
std::optional<StoredType> StoredTypeOf(absl::string_view name);
std::optional<StoredType> StoredTypeOfGgml(uint32_t id);

// Bytes of a tensor. Absent if they are not a whole number of blocks (in each
// row, for blocks of more than 8 elements) or more than fit an int64_t.
std::optional<int64_t> BytesOf(StoredType type,
                               absl::Span<const int64_t> shape);

// "[3, 4]".
std::string ShapeToString(absl::Span<const int64_t> shape);

// A tensor within a mapped file. Row-major: the last dimension is contiguous.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  absl::string_view bytes;  // Of `file`; as many as type and shape need.
  std::shared_ptr<const MappedFile> file;

  int64_t elements() const;
};

// By name.
using TensorTable = std::map<std::string, StoredTensor, std::less<>>;

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_STORED_TENSOR_H_
