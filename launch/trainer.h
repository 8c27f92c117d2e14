// The training loop.
#ifndef LORICA_LAUNCH_TRAINER_H_
#define LORICA_LAUNCH_TRAINER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "launch/metrics.h"
#include "launch/run_config.h"
#include "launch/session.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "model/token_batch.h"
#include "parallel/grad_sync.h"

namespace lorica {

// The training rows in their order: rows first .. first + count - 1 of the
// endless sequence of global batches.
using RowSource = std::function<TokenBatch(int64_t first, int64_t count)>;

// What a run does beside computing. Called on every rank at the same moments.
struct TrainerEvents {
  std::function<absl::Status(const StepMetrics&)> on_step;
  // After the update of `step`, where a save is due.
  std::function<absl::Status(int64_t step)> on_save;
  // Where a validation is due; step 0 is before training.
  std::function<absl::Status(int64_t step)> on_validate;
};

// A step takes global_batch rows. They are cut in micro-batches of micro_batch
// rows, numbered over the whole batch; data rank d of D computes a contiguous
// run of them, and the gradients are summed in one tree over their numbers (see
// tree_sum.h), so neither D nor the accumulation changes a bit. Before every
// save, and in debug builds after every step, the ranks prove that they hold
// the same adapter; one that does not is fatal.
class Trainer {
 public:
  // The arguments must outlive the trainer. `targets` says how many of the
  // rows' tokens carry a loss; every rank knows it of every row.
  Trainer(const RunConfig& config, const Session& session, const Gpt& gpt,
          Adapter* adapter, RowSource rows,
          std::function<int64_t(int64_t first, int64_t count)> targets);

  // Runs all steps. Error: a loss or gradient that is not a number, with its
  // step; what an event returns.
  absl::Status Run(const TrainerEvents& events);

 private:
  absl::StatusOr<StepMetrics> Step(int64_t step);
  // Adds a micro-batch's gradient and returns its loss, summed in nats.
  double MicroBatch(const TokenBatch& batch, float grad_scale);
  void Update(int64_t step, double grad_norm, double learning_rate);
  void VerifyReplicas();

  const RunConfig& config_;
  const Session& session_;
  const Gpt& gpt_;
  Adapter* adapter_;
  RowSource rows_;
  std::function<int64_t(int64_t, int64_t)> targets_;
  GradSync sync_;
};

// The losses of a batch's tokens under an adapter (null: the base model), 0
// where there is no target, with the records spread over the data ranks. The
// same on every rank.
std::vector<double> TokenLosses(const TokenBatch& batch, const Gpt& gpt,
                                const Adapter* adapter, const Session& session);

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAINER_H_
