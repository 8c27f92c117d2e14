// Turns computed numbers into stored elements; block_decode.h is the reverse.
#ifndef LORICA_RUNTIME_FILES_ELEMENT_ENCODE_H_
#define LORICA_RUNTIME_FILES_ELEMENT_ENCODE_H_

#include <bit>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// The nearest IEEE half, ties to even: from 65520 on an infinity. NaN stays
// NaN.
constexpr uint16_t FloatToHalf(float value) {
  const uint32_t word = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (word >> 16) & 0x8000u;
  const uint32_t magnitude = word & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // Below 2^-14: a multiple of 2^-24, which is
    // the last place of floats from 0.5 to 1.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(
        sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rebiased = magnitude - (112u << 23);
  return static_cast<uint16_t>(
      sign | ((rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13));
}

// Rounds each value to the nearest element of `type` (F32, F16 or BF16; ties to
// even), little-endian, into `out`. Returns the first finite value that the
// type cannot hold, if there is one; in its place is an infinity.
std::optional<float> EncodeRow(StoredType type, absl::Span<const float> values,
                               char* out);

// The same for a whole tensor. Error: a value that the type cannot hold; `name`
// is what it belongs to.
absl::StatusOr<std::string> EncodeTensor(absl::string_view name,
                                         StoredType type,
                                         absl::Span<const float> values);

// The error about such a value.
absl::Status CannotHold(absl::string_view name, StoredType type, float value);

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_ELEMENT_ENCODE_H_
