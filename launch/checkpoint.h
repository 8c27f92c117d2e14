// The saves of a run: one directory each, the newest named by `latest`.
#ifndef LORICA_LAUNCH_CHECKPOINT_H_
#define LORICA_LAUNCH_CHECKPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/peft_adapter.h"

namespace lorica {

// "step_00000050".
std::string StepName(int64_t step);

// Of one process: rank 0's.
class CheckpointStore {
 public:
  // Makes the directory where needed. `keep`: how many saves remain; 0: all.
  // Errors: it cannot be written to, or lacks the room for a save of
  // `save_bytes` beside the one before.
  static absl::StatusOr<CheckpointStore> Open(const std::string& directory,
                                              int64_t keep, int64_t save_bytes);

  // Writes a PEFT directory, then `latest`, then removes what is too old. A
  // failure leaves the saves so far untouched.
  absl::Status Save(int64_t step, const PeftAdapter& adapter);

  // A path in the run's directory.
  std::string PathOf(const std::string& name) const;

 private:
  CheckpointStore(std::string directory, int64_t keep)
      : directory_(std::move(directory)), keep_(keep) {}
  absl::Status RemoveOld() const;

  std::string directory_;
  int64_t keep_;
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_CHECKPOINT_H_
