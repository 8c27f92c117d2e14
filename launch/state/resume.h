// Going on where a save stands.
#ifndef LORICA_LAUNCH_STATE_RESUME_H_
#define LORICA_LAUNCH_STATE_RESUME_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "launch/config/config.h"
#include "launch/state/saved_state.h"
#include "model/adapter.h"
#include "parallel/communicator.h"

namespace lorica {

// What decides whether a save fits a run.
struct RunIdentity {
  std::map<std::string, std::string> config;  // LoadedConfig::fields.
  std::string data_checksum;                  // Of the training records.
};

struct ResumedRun {
  std::string save;  // Its directory.
  Manifest manifest;
  // Newer saves that are damaged: what is wrong with each.
  std::vector<std::string> passed_over;
};

// Fills the adapter from the save that checkpoint.resume means; absent: the run
// starts anew. All ranks of the world call it and agree. AUTO takes the newest
// save of checkpoint.directory that is whole on all ranks; there being saves,
// but none whole, is an error. Errors: a save given by its path is damaged; a
// field that alters meaning has changed (CheckSameRun); the save does not fit
// the adapter.
absl::StatusOr<std::optional<ResumedRun>> Resume(
    const CheckpointOptions& options, const RunIdentity& run, int64_t steps,
    Adapter* adapter, Communicator& world);

// Whether a run may go on from a save: every field of the config is as it was,
// but those that do not alter what is computed (steps, mesh, micro-batch,
// reporting, saving, device) and those in `allowed`. The error names the first
// field with both values. A training file may move; its records may not change.
absl::Status CheckSameRun(const RunIdentity& run, const Manifest& saved,
                          const std::vector<std::string>& allowed,
                          const std::string& save);

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_RESUME_H_
