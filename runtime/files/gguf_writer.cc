#include "runtime/files/gguf_writer.h"

#include <bit>
#include <cstring>
#include <optional>
#include <set>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "runtime/check.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian");

constexpr size_t kAlignment = 32;  // Where general.alignment is absent.
constexpr size_t kLongestName = 63;
constexpr size_t kMostDims = 4;

template <typename T>
void Put(T value, std::string* out) {
  static_assert(std::is_arithmetic_v<T>);
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

void PutString(absl::string_view text, std::string* out) {
  Put<uint64_t>(text.size(), out);
  absl::StrAppend(out, text);
}

// Types of values, as numbered in files.
void PutPair(const GgufPair& pair, std::string* out) {
  PutString(pair.first, out);
  if (const auto* text = std::get_if<std::string>(&pair.second)) {
    Put<uint32_t>(8, out);
    PutString(*text, out);
  } else if (const auto* number = std::get_if<float>(&pair.second)) {
    Put<uint32_t>(6, out);
    Put(*number, out);
  } else {
    Put<uint32_t>(4, out);
    Put(std::get<uint32_t>(pair.second), out);
  }
}

size_t Padding(size_t bytes) {
  return (kAlignment - bytes % kAlignment) % kAlignment;
}

absl::Status Check(const std::string& path, const GgufData& tensor,
                   std::set<absl::string_view>* names) {
  const auto refuse = [&](absl::string_view reason) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor ", tensor.name, " ",
                     ShapeToString(tensor.shape), ": ", reason));
  };
  if (tensor.name.size() > kLongestName) {
    return refuse(absl::StrCat("a name has at most ", kLongestName, " bytes"));
  }
  if (tensor.shape.empty() || tensor.shape.size() > kMostDims) {
    return refuse(absl::StrCat("1 to ", kMostDims, " dimensions are possible"));
  }
  if (InfoOf(tensor.type).ggml_id < 0) {
    return refuse(absl::StrCat(NameOf(tensor.type), " is no type of ggml"));
  }
  if (!names->insert(tensor.name).second) return refuse("the name comes twice");
  const std::optional<int64_t> bytes = BytesOf(tensor.type, tensor.shape);
  CHECK(bytes.has_value() &&
        *bytes == static_cast<int64_t>(tensor.bytes.size()))
      << tensor.name;
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteGguf(const std::string& path,
                       absl::Span<const GgufPair> pairs,
                       absl::Span<const GgufData> tensors) {
  std::string header = "GGUF";
  Put<uint32_t>(3, &header);
  Put<uint64_t>(tensors.size(), &header);
  Put<uint64_t>(pairs.size(), &header);
  for (const GgufPair& pair : pairs) PutPair(pair, &header);
  std::set<absl::string_view> names;
  uint64_t offset = 0;
  for (const GgufData& tensor : tensors) {
    LORICA_RETURN_IF_ERROR(Check(path, tensor, &names));
    PutString(tensor.name, &header);
    Put(static_cast<uint32_t>(tensor.shape.size()), &header);
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) {
      Put(static_cast<uint64_t>(*dim), &header);
    }
    Put(static_cast<uint32_t>(InfoOf(tensor.type).ggml_id), &header);
    Put(offset, &header);
    offset += tensor.bytes.size() + Padding(tensor.bytes.size());
  }
  header.append(Padding(header.size()), '\0');
  LORICA_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  LORICA_RETURN_IF_ERROR(file.Append(header));
  for (const GgufData& tensor : tensors) {
    LORICA_RETURN_IF_ERROR(file.Append(tensor.bytes));
    LORICA_RETURN_IF_ERROR(
        file.Append(std::string(Padding(tensor.bytes.size()), '\0')));
  }
  return file.Commit();
}

}  // namespace lorica
