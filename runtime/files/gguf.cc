#include "runtime/files/gguf.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian and used in place");

// Types of values, as numbered in files.
enum class ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

// The fewest bytes a value of the type takes; 0 for an unknown type or a list,
// neither of which may stand in a list.
size_t LeastBytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kString:
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kArray:
      break;
  }
  return 0;
}

// Takes items off the front of a file's bytes.
class Cursor {
 public:
  Cursor(absl::string_view bytes, const std::string& path)
      : bytes_(bytes), path_(path) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }

  template <typename T>
  absl::Status Take(T* value) {
    if (remaining() < sizeof(T)) {
      return CutShort(sizeof(T));
    }
    std::memcpy(value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return absl::OkStatus();
  }

  absl::Status Take(std::string* value) {
    uint64_t length = 0;
    LORICA_RETURN_IF_ERROR(Take(&length));
    if (length > remaining()) {
      return CutShort(length);
    }
    value->assign(bytes_.data() + position_, length);
    position_ += length;
    return absl::OkStatus();
  }

  // A count of things of at least `least_bytes` each.
  absl::Status TakeCount(size_t least_bytes, uint64_t* count) {
    LORICA_RETURN_IF_ERROR(Take(count));
    return *count <= remaining() / least_bytes ? absl::OkStatus()
                                               : CutShort(*count);
  }

  absl::Status Error(absl::string_view reason) const {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": at byte ", position_, ": ", reason));
  }

 private:
  absl::Status CutShort(uint64_t wanted) const {
    return Error(absl::StrCat("damaged or cut short: ", wanted,
                              " items or bytes are announced, ", remaining(),
                              " bytes are left"));
  }

  absl::string_view bytes_;
  const std::string& path_;
  size_t position_ = 0;
};

template <typename Stored, typename Value>
absl::Status TakeAs(Cursor* cursor, Value* value) {
  Stored stored{};
  LORICA_RETURN_IF_ERROR(cursor->Take(&stored));
  if constexpr (std::is_same_v<Stored, uint64_t>) {
    if (stored > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return cursor->Error(absl::StrCat(stored, " is too large"));
    }
  }
  *value = static_cast<Value>(stored);
  return absl::OkStatus();
}

absl::Status TakeInteger(ValueType type, Cursor* cursor, int64_t* value) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kBool:
      return TakeAs<uint8_t>(cursor, value);
    case ValueType::kI8:
      return TakeAs<int8_t>(cursor, value);
    case ValueType::kU16:
      return TakeAs<uint16_t>(cursor, value);
    case ValueType::kI16:
      return TakeAs<int16_t>(cursor, value);
    case ValueType::kU32:
      return TakeAs<uint32_t>(cursor, value);
    case ValueType::kI32:
      return TakeAs<int32_t>(cursor, value);
    case ValueType::kU64:
      return TakeAs<uint64_t>(cursor, value);
    default:
      return TakeAs<int64_t>(cursor, value);
  }
}

absl::Status TakeFloat(ValueType type, Cursor* cursor, double* value) {
  return type == ValueType::kF32 ? TakeAs<float>(cursor, value)
                                 : TakeAs<double>(cursor, value);
}

// A list of `count` items, each taken by `take`.
template <typename T, typename TakeItem>
absl::Status TakeItems(uint64_t count, const TakeItem& take, GgufValue* value) {
  std::vector<T> items(count);
  for (T& item : items) {
    LORICA_RETURN_IF_ERROR(take(&item));
  }
  *value = std::move(items);
  return absl::OkStatus();
}

absl::Status TakeList(Cursor* cursor, GgufValue* value) {
  ValueType type{};
  LORICA_RETURN_IF_ERROR(cursor->Take(&type));
  const size_t least = LeastBytes(type);
  if (least == 0) {
    return cursor->Error(absl::StrCat(
        "a list of type ", static_cast<uint32_t>(type), " cannot be read"));
  }
  uint64_t count = 0;
  LORICA_RETURN_IF_ERROR(cursor->TakeCount(least, &count));
  switch (type) {
    case ValueType::kString:
      return TakeItems<std::string>(
          count, [&](std::string* item) { return cursor->Take(item); }, value);
    case ValueType::kF32:
    case ValueType::kF64:
      return TakeItems<double>(
          count, [&](double* item) { return TakeFloat(type, cursor, item); },
          value);
    default:
      return TakeItems<int64_t>(
          count, [&](int64_t* item) { return TakeInteger(type, cursor, item); },
          value);
  }
}

absl::Status TakeValue(Cursor* cursor, GgufValue* value) {
  ValueType type{};
  LORICA_RETURN_IF_ERROR(cursor->Take(&type));
  if (type == ValueType::kArray) {
    return TakeList(cursor, value);
  }
  if (LeastBytes(type) == 0) {
    return cursor->Error(
        absl::StrCat("a value of unknown type ", static_cast<uint32_t>(type)));
  }
  switch (type) {
    case ValueType::kString:
      return cursor->Take(&value->emplace<std::string>());
    case ValueType::kF32:
    case ValueType::kF64:
      return TakeFloat(type, cursor, &value->emplace<double>());
    case ValueType::kBool:
      return TakeAs<uint8_t>(cursor, &value->emplace<bool>());
    default:
      return TakeInteger(type, cursor, &value->emplace<int64_t>());
  }
}

struct Header {
  uint64_t num_tensors = 0;
  uint64_t num_values = 0;
};

absl::StatusOr<Header> TakeHeader(Cursor* cursor) {
  char magic[4];
  LORICA_RETURN_IF_ERROR(cursor->Take(&magic));
  if (std::memcmp(magic, "GGUF", sizeof(magic)) != 0) {
    return cursor->Error("not a GGUF file");
  }
  uint32_t version = 0;
  LORICA_RETURN_IF_ERROR(cursor->Take(&version));
  if (version != 2 && version != 3) {
    return cursor->Error(
        absl::StrCat("GGUF version ", version,
                     (version & 0xffff) == 0 ? " (a big-endian file)" : "",
                     " cannot be read; 2 and 3 can"));
  }
  constexpr size_t kLeastTensor = 8 + 4 + 8 + 4 + 8;
  constexpr size_t kLeastValue = 8 + 4 + 1;
  Header header;
  LORICA_RETURN_IF_ERROR(cursor->TakeCount(kLeastTensor, &header.num_tensors));
  LORICA_RETURN_IF_ERROR(cursor->TakeCount(kLeastValue, &header.num_values));
  return header;
}

// A tensor as announced, before its bytes are found.
struct Announced {
  StoredTensor tensor;
  uint64_t offset = 0;
  uint64_t size = 0;
};

absl::StatusOr<Announced> TakeTensorInfo(Cursor* cursor, uint64_t alignment) {
  Announced result;
  StoredTensor& tensor = result.tensor;
  LORICA_RETURN_IF_ERROR(cursor->Take(&tensor.name));
  uint32_t rank = 0;
  LORICA_RETURN_IF_ERROR(cursor->Take(&rank));
  constexpr uint32_t kMaxRank = 4;
  if (rank == 0 || rank > kMaxRank) {
    return cursor->Error(absl::StrCat("tensor ", tensor.name, " has ", rank,
                                      " dimensions; 1 to 4 are possible"));
  }
  tensor.shape.resize(rank);
  for (uint32_t i = 0; i < rank; ++i) {
    LORICA_RETURN_IF_ERROR(
        TakeAs<uint64_t>(cursor, &tensor.shape[rank - 1 - i]));
  }
  uint32_t type_id = 0;
  LORICA_RETURN_IF_ERROR(cursor->Take(&type_id));
  const std::optional<StoredType> type = StoredTypeOfGgml(type_id);
  if (!type) {
    return cursor->Error(absl::StrCat("tensor ", tensor.name,
                                      " is of GGML type ", type_id,
                                      ", which is not known"));
  }
  tensor.type = *type;
  const std::optional<int64_t> size = BytesOf(*type, tensor.shape);
  LORICA_RETURN_IF_ERROR(cursor->Take(&result.offset));
  if (!size || result.offset % alignment != 0) {
    return cursor->Error(absl::StrCat(
        "tensor ", tensor.name, " of ", NameOf(*type), " ",
        ShapeToString(tensor.shape), " at offset ", result.offset,
        " is impossible: rows are whole blocks, offsets multiples of ",
        alignment));
  }
  result.size = static_cast<uint64_t>(*size);
  return result;
}

// Finds the tensors' bytes in `data` and puts them into `table`.
absl::Status Place(std::vector<Announced> announced, absl::string_view data,
                   const std::shared_ptr<const MappedFile>& file,
                   TensorTable* table) {
  std::sort(announced.begin(), announced.end(),
            [](const Announced& a, const Announced& b) {
              return std::pair(a.offset, a.size) < std::pair(b.offset, b.size);
            });
  uint64_t end = 0;
  for (Announced& item : announced) {
    const std::string what =
        absl::StrCat(file->path(), ": tensor ", item.tensor.name, " of ",
                     item.size, " bytes at offset ", item.offset);
    if (item.offset > data.size() || item.size > data.size() - item.offset) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " ends beyond the file's ", data.size(),
                       " bytes of elements; is it cut short?"));
    }
    if (item.offset < end) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " overlaps another"));
    }
    end = item.offset + item.size;
    item.tensor.bytes = data.substr(item.offset, item.size);
    item.tensor.file = file;
    const std::string name = item.tensor.name;
    if (!table->emplace(name, std::move(item.tensor)).second) {
      return absl::InvalidArgumentError(absl::StrCat(what, " comes twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GgufFile> GgufFile::Open(const std::string& path) {
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  Cursor cursor(file->bytes(), path);
  LORICA_ASSIGN_OR_RETURN(const Header header, TakeHeader(&cursor));
  GgufFile result;
  result.path_ = path;
  for (uint64_t i = 0; i < header.num_values; ++i) {
    std::string key;
    LORICA_RETURN_IF_ERROR(cursor.Take(&key));
    GgufValue value;
    LORICA_RETURN_IF_ERROR(TakeValue(&cursor, &value));
    if (!result.values_.emplace(key, std::move(value)).second) {
      return cursor.Error(absl::StrCat("the key ", key, " comes twice"));
    }
  }
  int64_t alignment = 32;
  LORICA_RETURN_IF_ERROR(result.Read("general.alignment", &alignment));
  if (alignment <= 0 || alignment > (1 << 20) ||
      !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return cursor.Error(
        absl::StrCat("general.alignment is ", alignment,
                     "; a power of two up to 1048576 is needed"));
  }
  std::vector<Announced> announced;
  for (uint64_t i = 0; i < header.num_tensors; ++i) {
    LORICA_ASSIGN_OR_RETURN(
        Announced item,
        TakeTensorInfo(&cursor, static_cast<uint64_t>(alignment)));
    announced.push_back(std::move(item));
  }
  const size_t step = static_cast<size_t>(alignment);
  const size_t begin = (cursor.position() + step - 1) / step * step;
  const absl::string_view data =
      file->bytes().substr(std::min(begin, file->bytes().size()));
  LORICA_RETURN_IF_ERROR(
      Place(std::move(announced), data, file, &result.tensors_));
  return result;
}

}  // namespace lorica
