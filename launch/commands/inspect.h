// `lorica inspect`: what a file or directory holds, as tables.
#ifndef LORICA_LAUNCH_COMMANDS_INSPECT_H_
#define LORICA_LAUNCH_COMMANDS_INSPECT_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace lorica {

enum class Verification : uint8_t { kNone, kEveryByte };

// `path` is a model (a Hugging Face directory or a GGUF file), a PEFT
// directory, a checkpoint, a run directory (its newest save), an adapter in a
// GGUF file, or a safetensors file. Prints its configuration, one line a tensor
// (name, shape, type, bytes) in natural order, and totals. A model that can be
// listed but not run says why. With kEveryByte, reads it all: an element that
// is infinite or NaN is an error, and so is a checkpoint that is not what its
// checksums say. Any other error is of the path alone.
absl::Status Inspect(const std::string& path, Verification verification,
                     std::ostream& out);

// Two adapters (PEFT directories, saves or runs), module by module: the norms
// of their changes s B A and of the difference, the cosine between them, and
// the cosines of A and of B where the ranks agree. Error: one of them cannot be
// read.
absl::Status InspectDifference(const std::string& first,
                               const std::string& second, std::ostream& out);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_INSPECT_H_
