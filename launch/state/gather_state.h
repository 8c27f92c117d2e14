// Shards of a save made one file.
#ifndef LORICA_LAUNCH_STATE_GATHER_STATE_H_
#define LORICA_LAUNCH_STATE_GATHER_STATE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace lorica {

// Writes to the directory `out`, whole or not at all, the save that lies in
// `saves` (see SavedState::Open): the same manifest with every logical tensor
// in one shard, state/shard-0-of-1.safetensors, and the files beside the state.
// `out` resumes as the save does. Memory: one tensor. Errors: what
// SavedState::Read refuses; a write that fails.
absl::Status GatherState(std::vector<std::string> saves,
                         const std::string& out);

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_GATHER_STATE_H_
