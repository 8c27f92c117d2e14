#include "runtime/files/element_encode.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/check.h"
#include "runtime/dtype.h"

namespace lorica {
namespace {

template <typename Stored, typename Convert>
void ConvertRow(absl::Span<const float> values, char* out,
                const Convert& convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    const Stored stored = convert(values[i]);
    std::memcpy(out + i * sizeof(Stored), &stored, sizeof(Stored));
  }
}

// Where rounding to nearest ends in an infinity: half a unit beyond the largest
// number.
float FirstBeyond(StoredType type) {
  return type == StoredType::kF16 ? 65520.0f : 0x1.ffp127f;
}

}  // namespace

std::optional<float> EncodeRow(StoredType type, absl::Span<const float> values,
                               char* out) {
  if (type == StoredType::kF32) {
    std::memcpy(out, values.data(), values.size() * sizeof(float));
    return std::nullopt;
  }
  if (type == StoredType::kF16) {
    ConvertRow<uint16_t>(values, out, FloatToHalf);
  } else {
    CHECK_EQ(type, StoredType::kBF16);
    ConvertRow<BFloat16>(values, out, [](float x) { return BFloat16(x); });
  }
  const float beyond = FirstBeyond(type);
  for (const float value : values) {
    if (std::isfinite(value) && std::abs(value) >= beyond) return value;
  }
  return std::nullopt;
}

absl::Status CannotHold(absl::string_view name, StoredType type, float value) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, " has a value of ", value, ", which ", NameOf(type),
                   " cannot hold; choose another type"));
}

absl::StatusOr<std::string> EncodeTensor(absl::string_view name,
                                         StoredType type,
                                         absl::Span<const float> values) {
  std::string bytes(
      values.size() * static_cast<size_t>(InfoOf(type).block_bytes), '\0');
  const std::optional<float> lost = EncodeRow(type, values, bytes.data());
  if (lost.has_value()) return CannotHold(name, type, *lost);
  return bytes;
}

}  // namespace lorica
