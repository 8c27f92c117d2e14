// The training loop.
#ifndef LORICA_LAUNCH_TRAIN_TRAINER_H_
#define LORICA_LAUNCH_TRAIN_TRAINER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "launch/config/run_config.h"
#include "launch/report/metrics.h"
#include "launch/session.h"
#include "launch/train/position.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "model/pass_recordings.h"
#include "model/token_batch.h"
#include "parallel/grad_sync.h"
#include "parallel/recorded_work.h"

namespace lorica {

// The training rows in their order: rows first .. first + count - 1 of the
// endless sequence of global batches.
using RowSource = std::function<TokenBatch(int64_t first, int64_t count)>;

// What a run does beside computing. Called on every rank at the same moments.
struct TrainerEvents {
  std::function<void(int64_t step)> before_step;
  std::function<absl::Status(const StepMetrics&)> on_step;
  // Where a save is due. The adapter is that of the position.
  std::function<absl::Status(const TrainingPosition&)> on_save;
  // Where a validation is due; step 0 is before training.
  std::function<absl::Status(int64_t step)> on_validate;
  // Asked after each step, on each rank for itself: not 0 where the run should
  // save and end. The largest answer of all ranks counts.
  std::function<int64_t()> stop_wish;
  // Before a run ends that was asked to: after its save.
  std::function<absl::Status(int64_t wish, int64_t step)> on_stop;
  // A step that does not count, as train.on_anomaly says, and why.
  std::function<absl::Status(const std::string& what)> on_anomaly;
};

// A step takes global_batch rows. They are cut in micro-batches of micro_batch
// rows, numbered over the whole batch; data rank d of D computes a contiguous
// run of them, and the gradients are summed in one tree over their numbers (see
// tree_sum.h), so neither D nor the accumulation changes a bit. Before every
// save, and in debug builds after every step, the ranks prove that they hold
// the same adapter; one that does not is fatal.
class Trainer {
 public:
  // The arguments must outlive the trainer; the device records passes if the
  // config wants it. `targets` says how many of the rows' tokens carry a loss;
  // every rank knows it of every row. The adapter and its moments are those of
  // `position`. `activations` is for those of passes; null: they lie where
  // other tensors of the device do.
  Trainer(const RunConfig& config, const Session& session, const Gpt& gpt,
          Adapter* adapter, RowSource rows,
          std::function<int64_t(int64_t first, int64_t count)> targets,
          TrainingPosition position = {}, Allocator* activations = nullptr);

  // Runs the steps that are left. Events but on_step may be absent. Error: an
  // anomaly that train.on_anomaly makes one, with its step; what an event
  // returns.
  absl::Status Run(const TrainerEvents& events);

  // Of this rank; none where pass_graphs is 0.
  PassRecordings::Counts recorded_passes() const {
    return recordings_ ? recordings_->counts() : PassRecordings::Counts();
  }

 private:
  // The adapter of a position, to roll back to.
  struct Backup {
    TrainingPosition position;
    std::vector<float> values;
    std::vector<float> first_moments;
    std::vector<float> second_moments;
  };
  struct StepResult {
    StepMetrics metrics;
    std::string anomaly;  // What is wrong; empty: the update was made.
    int64_t stop_wish = 0;
  };

  struct BatchLoss {
    double loss;  // Mean over the targets.
    int64_t tokens;
  };

  // Computes the global batch that begins at that row: leaves the sum of its
  // gradients, divided by its number of targets.
  BatchLoss Accumulate(int64_t first_row, int64_t targets);
  // Computes the next step, and updates unless something is wrong with it.
  StepResult Step(const TrainerEvents& events);
  // Moves the position past an anomaly, or back.
  absl::Status React(const StepResult& result, const TrainerEvents& events);
  absl::Status Save(const TrainerEvents& events);
  void BackUp();
  void RollBack();
  // The micro-batch that begins at row `first`.
  TokenBatch Rows(int64_t first) const;
  // Sums the gradients over the ranks.
  void Reduce();
  // Whether more is added to the gradients of a step.
  enum class Follows : uint8_t { kMore, kNothing };
  // Adds a micro-batch's gradient and returns the losses of its passes. Where
  // nothing follows, buckets are summed as soon as they are complete.
  std::vector<RowLosses> MicroBatch(const TokenBatch& batch, float grad_scale,
                                    Follows follows);
  // The sums that a step's last pass starts.
  LayersDone BucketsDone();
  // Leaves zeros for the next step's gradients.
  void Update(int64_t step, double grad_norm, double learning_rate);
  void VerifyReplicas();

  const RunConfig& config_;
  const Session& session_;
  const Gpt& gpt_;
  Adapter* adapter_;
  RowSource rows_;
  std::function<int64_t(int64_t, int64_t)> targets_;
  std::vector<int64_t> bucket_layers_;        // That complete them.
  std::optional<PassRecordings> recordings_;  // Outlives works recorded beside.
  GradSync sync_;
  TrainingPosition position_;
  Tensor adamw_numbers_;  // Those of the present step.
  RecordedWork update_;
  Allocator* activations_;        // May be null.
  std::optional<Backup> backup_;  // Where train.on_anomaly rolls back.
};

// The losses of a batch's tokens under an adapter (null: the base model), 0
// where there is no target, with the records spread over the data ranks. The
// same on every rank.
std::vector<double> TokenLosses(const TokenBatch& batch, const Gpt& gpt,
                                const Adapter* adapter, const Session& session);

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_TRAINER_H_
