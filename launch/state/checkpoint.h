// The run directory: a save is a directory in it, the newest named by `latest`.
#ifndef LORICA_LAUNCH_STATE_CHECKPOINT_H_
#define LORICA_LAUNCH_STATE_CHECKPOINT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "launch/config/run_config.h"

namespace lorica {

// "step_00000050".
std::string StepName(int64_t step);

// The names of the saves in a run directory, the newest first: what `latest`
// names, then the others by falling step.
std::vector<std::string> SavesIn(const std::string& directory);

// A save given as such or by its run directory, whose `latest` is followed.
std::string ResolveSave(const std::string& path);

// For one process a directory: the one that puts saves in place there.
class CheckpointStore {
 public:
  // Makes the directory where needed and clears away what a killed run left
  // half-written. Errors: it cannot be written to, or lacks the room for a save
  // of `save_bytes` beside the one before.
  static absl::StatusOr<CheckpointStore> Open(const CheckpointOptions& options,
                                              int64_t save_bytes);

  // Makes the save of `step`, in place already, the newest, and removes what is
  // too old: all but the `keep` newest and those whose step is a multiple of
  // keep_every_steps. Saves of later steps, which a run leaves that starts anew
  // or from an earlier step, count as the oldest.
  absl::Status Publish(int64_t step) const;

  // A path in the run's directory.
  std::string PathOf(const std::string& name) const;

 private:
  explicit CheckpointStore(CheckpointOptions options)
      : options_(std::move(options)) {}
  absl::Status RemoveOld(int64_t newest) const;

  CheckpointOptions options_;
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_CHECKPOINT_H_
