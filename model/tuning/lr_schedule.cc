#include "model/tuning/lr_schedule.h"

#include <cmath>
#include <numbers>

namespace lorica {

double LearningRate(const LrConfig& config, int64_t step) {
  if (step <= config.warmup_steps) {
    return config.peak * static_cast<double>(step) /
           static_cast<double>(config.warmup_steps);
  }
  if (config.schedule == Schedule::kConstant) return config.peak;
  const double done = static_cast<double>(step - 1 - config.warmup_steps) /
                      static_cast<double>(config.steps - config.warmup_steps);
  return config.peak * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
}

}  // namespace lorica
