// `lorica inspect`: what a file or directory holds, as tables.
#ifndef LORICA_LAUNCH_COMMANDS_INSPECT_H_
#define LORICA_LAUNCH_COMMANDS_INSPECT_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace lorica {

// `path` is a model (a Hugging Face directory or a GGUF file), a PEFT
// directory, a checkpoint, or a safetensors file. Prints its configuration, one
// line a tensor (name, shape, type, bytes) in natural order, and totals. A
// model that can be listed but not run says why. An error is of the path alone.
absl::Status Inspect(const std::string& path, std::ostream& out);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_INSPECT_H_
