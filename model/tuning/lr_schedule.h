// The learning rate of each step.
#ifndef LORICA_MODEL_TUNING_LR_SCHEDULE_H_
#define LORICA_MODEL_TUNING_LR_SCHEDULE_H_

#include <cstdint>

namespace lorica {

enum class Schedule : uint8_t { kConstant, kCosine };

struct LrConfig {
  double peak = 1e-3;
  int64_t warmup_steps = 0;
  int64_t steps = 1;  // Of the whole run.
  Schedule schedule = Schedule::kCosine;
};

// Of step 1 .. steps: peak * step / warmup_steps while warming up, then
// constant, or falling along half a cosine from the peak at the first step
// after the warm-up to nearly zero at the last.
double LearningRate(const LrConfig& config, int64_t step);

}  // namespace lorica

#endif  // LORICA_MODEL_TUNING_LR_SCHEDULE_H_
