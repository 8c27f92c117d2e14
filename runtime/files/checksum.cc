#include "runtime/files/checksum.h"

#include <xxhash.h>

#include "absl/strings/escaping.h"

namespace lorica {

std::string Checksum(absl::string_view bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical,
                           XXH3_128bits(bytes.data(), bytes.size()));
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(canonical.digest),
                        sizeof(canonical.digest)));
}

}  // namespace lorica
