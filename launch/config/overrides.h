// "--set path=value": assigns one field of a protobuf message by its name.
#ifndef LORICA_LAUNCH_CONFIG_OVERRIDES_H_
#define LORICA_LAUNCH_CONFIG_OVERRIDES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace google::protobuf {
class Message;
}

namespace lorica {

// Applies overrides such as "train.steps=10" or "model.dtype=F32" in order. The
// first value for a repeated field replaces its list, later ones append. Errors
// quote the override and list the names that exist.
absl::Status ApplyOverrides(const std::vector<std::string>& overrides,
                            google::protobuf::Message* message);

}  // namespace lorica

#endif  // LORICA_LAUNCH_CONFIG_OVERRIDES_H_
