// Steps that must not count: what is not a number, and outliers.
#ifndef LORICA_LAUNCH_TRAIN_ANOMALY_H_
#define LORICA_LAUNCH_TRAIN_ANOMALY_H_

#include <string>

#include "launch/train/position.h"

namespace lorica {

inline constexpr int kRecentSteps = 32;
inline constexpr int kFewestRecentSteps = 8;

// What is wrong with a step of this loss (nats) and gradient norm: "the loss is
// nan"; empty where nothing is. Above `outlier_factor` times the median of the
// recent steps, once there are kFewestRecentSteps, a value is an outlier; no
// value is where the factor is 0. A function of its arguments alone, so all
// ranks judge alike.
std::string AnomalyOf(double loss, double grad_norm, double outlier_factor,
                      const TrainingPosition& position);

// Adds a step without anomaly to the recent ones, which are kRecentSteps at
// most.
void Remember(double loss, double grad_norm, TrainingPosition* position);

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_ANOMALY_H_
