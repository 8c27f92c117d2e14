// Where a run stands between two steps.
#ifndef LORICA_LAUNCH_TRAIN_POSITION_H_
#define LORICA_LAUNCH_TRAIN_POSITION_H_

#include <cstdint>
#include <vector>

namespace lorica {

// With the adapter's values and moments this is all that the rest of a run
// depends on: everything random is a function of the seed and of its place.
struct TrainingPosition {
  int64_t step = 0;  // Steps done.
  // Global batches that rolling back passed over: step s takes the batch
  // s - 1 + skipped_batches of the endless sequence.
  int64_t skipped_batches = 0;
  int64_t anomalies = 0;  // Met so far.
  // What the last steps without anomaly measured, the oldest first: what an
  // outlier is told from (anomaly.h).
  std::vector<double> recent_losses;
  std::vector<double> recent_grad_norms;
  friend bool operator==(const TrainingPosition&,
                         const TrainingPosition&) = default;
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_POSITION_H_
