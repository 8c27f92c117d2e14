// Where a trained adapter and its base model lie.
#ifndef LORICA_LAUNCH_COMMANDS_SAVED_ADAPTER_H_
#define LORICA_LAUNCH_COMMANDS_SAVED_ADAPTER_H_

#include <string>

#include "absl/status/statusor.h"

namespace lorica {

// The PEFT directory that `path` is, or, of a run directory, its newest save,
// which the file `latest` names. Error: it is neither.
absl::StatusOr<std::string> FindAdapterDirectory(const std::string& path);

// The base model of a PEFT directory: `named`, what its adapter_config.json
// says, where that exists here; else model.path of the run.textproto in the
// directory above. Error: neither exists; --model is asked for.
absl::StatusOr<std::string> FindBaseModel(const std::string& adapter_directory,
                                          const std::string& named);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_SAVED_ADAPTER_H_
