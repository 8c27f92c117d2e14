#include "model/tuning/lr_schedule.h"

#include "gtest/gtest.h"

namespace lorica {
namespace {

TEST(LearningRateTest, WarmsUpInAStraightLine) {
  const LrConfig config = {.peak = 4.0, .warmup_steps = 4, .steps = 10};
  EXPECT_DOUBLE_EQ(LearningRate(config, 1), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(config, 4), 4.0);
}

TEST(LearningRateTest, TheCosineFallsFromThePeakToNearlyZero) {
  const LrConfig config = {.peak = 2.0, .warmup_steps = 2, .steps = 12};
  EXPECT_DOUBLE_EQ(LearningRate(config, 3), 2.0);
  EXPECT_NEAR(LearningRate(config, 8), 1.0, 1e-12);
  EXPECT_GT(LearningRate(config, 12), 0.0);
  for (int step = 3; step < 12; ++step) {
    EXPECT_GT(LearningRate(config, step), LearningRate(config, step + 1));
  }
}

TEST(LearningRateTest, AConstantRateStaysAfterTheWarmUp) {
  const LrConfig config = {.peak = 2.0,
                           .warmup_steps = 0,
                           .steps = 3,
                           .schedule = Schedule::kConstant};
  EXPECT_DOUBLE_EQ(LearningRate(config, 1), 2.0);
  EXPECT_DOUBLE_EQ(LearningRate(config, 3), 2.0);
}

}  // namespace
}  // namespace lorica
