// A whole training run: from a config to adapters on disk.
#ifndef LORICA_LAUNCH_TRAIN_TRAIN_RUN_H_
#define LORICA_LAUNCH_TRAIN_TRAIN_RUN_H_

#include "absl/status/status.h"
#include "launch/config/config.h"
#include "launch/session.h"

namespace lorica {

// Everything a user can get wrong is found, and agreed on by all ranks, before
// the first step and before anything is written. Leaves in the checkpoint
// directory the resolved config, the metrics, and a PEFT directory for each
// save that is kept; `latest` names the newest.
absl::Status RunTraining(const LoadedConfig& config, const Session& session);

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_TRAIN_RUN_H_
