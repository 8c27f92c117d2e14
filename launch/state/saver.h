// Saves, written beside training by the ranks that hold the slices.
#ifndef LORICA_LAUNCH_STATE_SAVER_H_
#define LORICA_LAUNCH_STATE_SAVER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "launch/state/adapter_state.h"
#include "launch/state/checkpoint.h"
#include "launch/state/manifest.h"
#include "model/peft_adapter.h"
#include "parallel/communicator.h"
#include "parallel/staged_work.h"

namespace lorica {

// How a save went.
struct SaveReport {
  int64_t step = 0;
  absl::Status status;  // Not OK: the save before it is still the newest.
  double seconds = 0;   // From its start until it was in place.
  double blocked_seconds = 0;  // Of these, those that training stood still.
  int64_t bytes = 0;           // Of all files of all ranks.
};

// What a rank puts into a save.
struct SaveContent {
  Manifest manifest;  // Without shards and files; the same on all ranks.
  Snapshot snapshot;
  std::optional<PeftAdapter> peft;  // On rank 0.
};

// The tensor ranks of the first data replica have one each and call everything
// at the same moments. A save goes to step_N.partial, a shard a rank, each
// forced to disk; when all ranks are done it gets its manifest and is renamed
// to step_N, in every directory the ranks write to; then `latest` is renewed
// and what is too old removed. A rank killed at any instant leaves the saves
// before it as they are. What fails leaves no trace but the report.
class Saver {
 public:
  // Error: a directory that cannot be used, see CheckpointStore::Open.
  // `save_bytes`: of a whole save. `ranks` must outlive the saver.
  static absl::StatusOr<std::unique_ptr<Saver>> Open(
      const CheckpointOptions& options, int64_t save_bytes,
      Communicator* ranks);
  ~Saver();

  // Begins a save and returns as soon as a thread writes it. Before that, a
  // save in progress is waited for: its report is returned.
  std::optional<SaveReport> Start(SaveContent content,
                                  std::chrono::steady_clock::time_point since);
  // Between steps: the report of a save that is over. Nothing is exchanged
  // while none is in progress.
  std::optional<SaveReport> Poll();
  // Waits for the save in progress, if there is one.
  std::optional<SaveReport> Finish();

 private:
  struct Job;

  Saver(CheckpointOptions options, Communicator* ranks);
  std::optional<SaveReport> Advance(Patience patience);

  CheckpointOptions options_;
  Communicator* ranks_;
  std::optional<CheckpointStore> store_;  // Where this rank leads a directory.
  std::unique_ptr<Job> job_;
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_SAVER_H_
