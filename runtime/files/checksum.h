// Checksums that files are verified by.
#ifndef LORICA_RUNTIME_FILES_CHECKSUM_H_
#define LORICA_RUNTIME_FILES_CHECKSUM_H_

#include <string>

#include "absl/strings/string_view.h"

namespace lorica {

// XXH3 of 128 bits (https://xxhash.com) in its canonical form, as 32 lower-case
// hexadecimal digits: what `xxhsum -H2` prints. It finds damage, not malice.
std::string Checksum(absl::string_view bytes);

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_CHECKSUM_H_
