// The memory of a run's passes, known and taken before its first step.
#ifndef LORICA_LAUNCH_TRAIN_PASS_PLANNING_H_
#define LORICA_LAUNCH_TRAIN_PASS_PLANNING_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "launch/config/run_config.h"
#include "launch/session.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "model/pass_memory.h"
#include "model/text/dataset.h"

namespace lorica {

// Tokens that the largest pass over such data can have, on devices that take
// `pass_tokens` at a time: those of a micro-batch, or as many as the device
// takes, or those of the longest record.
int64_t MostPassTokens(const RunConfig& config, const Dataset& train,
                       int64_t pass_tokens);

struct PlannedPasses {
  // For activations. Null on CPUs, where memory that nobody has touched costs
  // nothing and the device's own is as good.
  std::unique_ptr<PassMemory> memory;
  // A line for the user: what a pass takes, the most of any rank.
  std::string note;
};

// All ranks call it, and all fail or none. Error: a GPU has not as much memory
// as a pass takes; the message has both numbers and what would fit.
absl::StatusOr<PlannedPasses> PlanPasses(const RunConfig& config,
                                         const Dataset& train,
                                         const Session& session, const Gpt& gpt,
                                         const Adapter& adapter);

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_PASS_PLANNING_H_
