// An adapter's values and moments as the logical tensors of a save.
#ifndef LORICA_LAUNCH_STATE_ADAPTER_STATE_H_
#define LORICA_LAUNCH_STATE_ADAPTER_STATE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "launch/state/manifest.h"
#include "launch/state/saved_state.h"
#include "model/adapter.h"

namespace lorica {

// "MODULE.lora_a.value", "MODULE.lora_b.first_moment" and so on, with their
// whole shapes: three a factor.
std::map<std::string, Shape> StateTensorsOf(const Adapter& adapter);

// A rank's copy of what it saves, so that training can go on while it is
// written: every slice of which the rank is the first holder in its tensor
// group. The ranks of one group hold every element once.
struct Snapshot {
  struct Part {
    std::string tensor;
    Slice slice;
    int64_t offset = 0;  // In `elements`.
  };
  std::vector<Part> parts;
  std::vector<float> elements;
};

// Blocks until the device's arrays are on the host. `rank`: in the tensor
// group.
Snapshot TakeSnapshot(Adapter* adapter, int rank);

// Writes a shard into an existing directory, forced to disk, and says what it
// holds. Touches no device. A snapshot of nothing writes no file.
absl::StatusOr<Shard> WriteShard(const Snapshot& snapshot,
                                 const std::string& directory,
                                 const std::string& file);

// Fills this rank's slices of values and moments. Errors: what
// SavedState::Read refuses; InvalidArgument for a tensor that is missing, not
// the adapter's or of another shape, by name. After an error the adapter holds
// parts of either state.
absl::Status LoadState(SavedState* state, Adapter* adapter);

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_ADAPTER_STATE_H_
