#include "runtime/files/stored_tensor.h"

#include <cstddef>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/check.h"

namespace lorica {
namespace {

// In the order of the enumeration.
constexpr StoredTypeInfo kTypes[] = {
    {StoredType::kF32, "F32", 1, 4, 0},
    {StoredType::kF16, "F16", 1, 2, 1},
    {StoredType::kBF16, "BF16", 1, 2, 30},
    {StoredType::kF64, "F64", 1, 8, 28},
    {StoredType::kI8, "I8", 1, 1, 24},
    {StoredType::kI16, "I16", 1, 2, 25},
    {StoredType::kI32, "I32", 1, 4, 26},
    {StoredType::kI64, "I64", 1, 8, 27},
    {StoredType::kU8, "U8", 1, 1, -1},
    {StoredType::kU16, "U16", 1, 2, -1},
    {StoredType::kU32, "U32", 1, 4, -1},
    {StoredType::kU64, "U64", 1, 8, -1},
    {StoredType::kBool, "BOOL", 1, 1, -1},
    {StoredType::kC64, "C64", 1, 8, -1},
    {StoredType::kF4, "F4", 2, 1, -1},
    {StoredType::kF6E2M3, "F6_E2M3", 4, 3, -1},
    {StoredType::kF6E3M2, "F6_E3M2", 4, 3, -1},
    {StoredType::kF8E5M2, "F8_E5M2", 1, 1, -1},
    {StoredType::kF8E4M3, "F8_E4M3", 1, 1, -1},
    {StoredType::kF8E8M0, "F8_E8M0", 1, 1, -1},
    {StoredType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 1, 1, -1},
    {StoredType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 1, 1, -1},
    {StoredType::kQ4_0, "Q4_0", 32, 18, 2},
    {StoredType::kQ4_1, "Q4_1", 32, 20, 3},
    {StoredType::kQ5_0, "Q5_0", 32, 22, 6},
    {StoredType::kQ5_1, "Q5_1", 32, 24, 7},
    {StoredType::kQ8_0, "Q8_0", 32, 34, 8},
    {StoredType::kQ2K, "Q2_K", 256, 84, 10},
    {StoredType::kQ3K, "Q3_K", 256, 110, 11},
    {StoredType::kQ4K, "Q4_K", 256, 144, 12},
    {StoredType::kQ5K, "Q5_K", 256, 176, 13},
    {StoredType::kQ6K, "Q6_K", 256, 210, 14},
    {StoredType::kIq4Nl, "IQ4_NL", 32, 18, 20},
    {StoredType::kIq4Xs, "IQ4_XS", 256, 136, 23},
};

// A block of up to 8 elements is sub-byte packing and may cross rows; a longer
// one is a quantization block and may not.
constexpr int64_t kLongestPacking = 8;

}  // namespace

const StoredTypeInfo& InfoOf(StoredType type) {
  const size_t index = static_cast<size_t>(type);
  CHECK_LT(index, std::size(kTypes));
  DCHECK(kTypes[index].type == type);
  return kTypes[index];
}

const char* NameOf(StoredType type) { return InfoOf(type).name; }

std::ostream& operator<<(std::ostream& out, StoredType type) {
  return out << NameOf(type);
}

std::optional<StoredType> StoredTypeOf(absl::string_view name) {
  for (const StoredTypeInfo& info : kTypes) {
    if (info.name == name && info.block_elements <= kLongestPacking) {
      return info.type;
    }
  }
  return std::nullopt;
}

std::optional<StoredType> StoredTypeOfGgml(uint32_t id) {
  for (const StoredTypeInfo& info : kTypes) {
    if (info.ggml_id >= 0 && static_cast<uint32_t>(info.ggml_id) == id) {
      return info.type;
    }
  }
  return std::nullopt;
}

std::optional<int64_t> BytesOf(StoredType type,
                               absl::Span<const int64_t> shape) {
  const StoredTypeInfo& info = InfoOf(type);
  int64_t elements = 1;
  for (const int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(elements, dim, &elements)) {
      return std::nullopt;
    }
  }
  const int64_t row = shape.empty() ? 1 : shape.back();
  const bool row_of_blocks = info.block_elements > kLongestPacking;
  int64_t bytes = 0;
  if ((row_of_blocks ? row : elements) % info.block_elements != 0 ||
      __builtin_mul_overflow(elements / info.block_elements, info.block_bytes,
                             &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

std::string ShapeToString(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

int64_t StoredTensor::elements() const {
  int64_t product = 1;
  for (const int64_t dim : shape) {
    product *= dim;
  }
  return product;
}

}  // namespace lorica
