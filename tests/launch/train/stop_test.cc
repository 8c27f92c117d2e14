// What ends a run early, or makes a step not count.
#include <signal.h>

#include <chrono>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launch/base_model.h"
#include "launch/train/anomaly.h"
#include "launch/train/stop_signals.h"
#include "launch/train/time_limit.h"
#include "launch/train/trainer.h"
#include "parallel/local_communicator.h"
#include "runtime/check.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(AnomalyTest, WhatIsNotANumberAlwaysIsOne) {
  const TrainingPosition position;
  EXPECT_EQ(AnomalyOf(kNan, 1, 0, position), "the loss is nan");
  EXPECT_EQ(AnomalyOf(1, kInfinity, 0, position), "the gradient's norm is inf");
  EXPECT_EQ(AnomalyOf(1e30, 1e30, 0, position), "");
}

TEST(AnomalyTest, AnOutlierIsAboveTheFactorTimesTheMedian) {
  TrainingPosition position;
  for (int step = 1; step < kFewestRecentSteps; ++step) {
    Remember(2, 0.5, &position);
  }
  EXPECT_EQ(AnomalyOf(100, 100, 3, position), "") << "too few to tell";
  Remember(50, 50, &position);  // Does not move a median.
  EXPECT_EQ(AnomalyOf(6, 1.5, 3, position), "");
  EXPECT_EQ(AnomalyOf(6.5, 1, 3, position),
            "the loss is 6.5, over 3 times the 2 usual lately");
  EXPECT_EQ(AnomalyOf(2, 1.75, 3, position),
            "the gradient's norm is 1.75, over 3 times the 0.5 usual lately");
  EXPECT_EQ(AnomalyOf(6.5, 1.75, 0, position), "");
  for (int step = 0; step < 100; ++step) Remember(9, 9, &position);
  EXPECT_EQ(position.recent_losses.size(), size_t{kRecentSteps});
  EXPECT_EQ(AnomalyOf(20, 20, 3, position), "");
}

TEST(TimeLimitTest, LeavesTimeForAStepAndASave) {
  using std::chrono::seconds;
  const TimeLimit::Clock::time_point start{};
  TimeLimit limit(100, start);
  EXPECT_FALSE(limit.IsUp(start + seconds(10)));
  EXPECT_FALSE(limit.IsUp(start + seconds(20)));  // Steps of 10 s.
  EXPECT_FALSE(limit.IsUp(start + seconds(30)));
  limit.Saved(5);
  EXPECT_FALSE(limit.IsUp(start + seconds(40)));
  EXPECT_FALSE(limit.IsUp(start + seconds(50)));
  EXPECT_FALSE(limit.IsUp(start + seconds(60)));
  EXPECT_TRUE(limit.IsUp(start + seconds(70)));
  EXPECT_FALSE(TimeLimit(0, start).IsUp(start + seconds(1'000'000)));
}

TEST(StopSignalsTest, AreNotedWhileOneLives) {
  struct sigaction before;
  ASSERT_EQ(sigaction(SIGUSR1, nullptr, &before), 0);
  {
    const StopSignals signals;
    EXPECT_EQ(StopSignals::Received(), 0);
    raise(SIGUSR1);
    EXPECT_EQ(StopSignals::Received(), SIGUSR1);
    raise(SIGTERM);
    raise(SIGTERM);
    EXPECT_EQ(StopSignals::Received(), SIGTERM);
    raise(SIGINT);
    EXPECT_EQ(SignalName(StopSignals::Received()), "SIGINT");
  }
  struct sigaction after;
  ASSERT_EQ(sigaction(SIGUSR1, nullptr, &after), 0);
  EXPECT_EQ(after.sa_handler, before.sa_handler);
}

TEST(StopSignalsDeathTest, ASecondInterruptEndsAtOnce) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        raise(SIGINT);
        raise(SIGINT);
      },
      testing::ExitedWithCode(130), "");
}

// A run of a tiny model, some of whose batches are no good.
struct Bench {
  RunConfig config;
  std::set<int64_t> bad;            // Global batches.
  std::vector<int64_t> batches;     // As they were asked for.
  std::vector<std::string> told;    // Anomalies.
  std::vector<int64_t> saved;       // Steps.
  std::vector<int64_t> counts;      // StepMetrics::anomalies.
  bool rolled_back_exactly = true;  // Every time.
  int64_t wish_at = -1;  // The step after which rank `wisher` wants to stop.
  int wisher = 0;
  std::vector<int64_t> stopped;  // Wish and step.
};

absl::Status TrainRank(Bench* bench, std::unique_ptr<Communicator> world) {
  const auto session =
      Session::Over(std::move(world), Placement{}, bench->config.mesh, {});
  CHECK(session.ok()) << session.status();
  const Session& s = **session;
  const Golden golden("heads_4_2_rope_llama3");
  const auto base = OpenBaseModel(golden.model_path(), s);
  const auto gpt = LoadGpt(*base, DType::kF32, kTensorParallel, s);
  const LoraConfig lora = {.rank = 2, .targets = {"q_proj"}};
  const auto adapter = MakeAdapter(*base, lora, DType::kF32, s);
  (*adapter)->Initialize(1);
  const auto batches = golden.micro_batches("curve_batch.safetensors");
  Trainer trainer(
      bench->config, s, *gpt, adapter->get(),
      [&](int64_t first, int64_t) {
        if (s.leads()) bench->batches.push_back(first);
        return batches[static_cast<size_t>(first) % batches.size()];
      },
      [&](int64_t first, int64_t) -> int64_t {
        if (bench->bad.count(first) > 0) return 0;  // The mean is no number.
        return batches[static_cast<size_t>(first) % batches.size()].num_targets;
      });
  std::vector<float> saved = (*adapter)->values()->ToHost<float>();
  int64_t asked = 0;
  return trainer.Run({.on_step =
                          [&](const StepMetrics& metrics) {
                            if (s.leads())
                              bench->counts.push_back(metrics.anomalies);
                            return absl::OkStatus();
                          },
                      .on_save =
                          [&](const TrainingPosition& position) {
                            saved = (*adapter)->values()->ToHost<float>();
                            if (s.leads())
                              bench->saved.push_back(position.step);
                            return absl::OkStatus();
                          },
                      .stop_wish = [&]() -> int64_t {
                        const bool wants =
                            ++asked == bench->wish_at &&
                            s.mesh().world().rank() == bench->wisher;
                        return wants ? 7 : 0;
                      },
                      .on_stop =
                          [&](int64_t wish, int64_t step) {
                            if (s.leads()) bench->stopped = {wish, step};
                            return absl::OkStatus();
                          },
                      .on_anomaly =
                          [&](const std::string& what) {
                            if (!s.leads()) return absl::OkStatus();
                            bench->told.push_back(what);
                            bench->rolled_back_exactly &=
                                (*adapter)->values()->ToHost<float>() == saved;
                            return absl::OkStatus();
                          }});
}

RunConfig SixSteps(OnAnomaly on_anomaly) {
  RunConfig config;
  config.train.steps = 6;
  config.train.global_batch = 1;
  config.train.micro_batch = 1;
  config.train.warmup_steps = 0;
  config.train.on_anomaly = on_anomaly;
  config.checkpoint.every_steps = 2;
  return config;
}

TEST(TrainerAnomalyTest, StopEndsTheRun) {
  Bench bench = {.config = SixSteps(OnAnomaly::kStop), .bad = {3}};
  const absl::Status status = TrainRank(&bench, LoneCommunicator());
  EXPECT_THAT(status.message(), HasSubstr("step 4: the loss is"));
  EXPECT_THAT(bench.saved, ElementsAre(2));
}

TEST(TrainerAnomalyTest, SkipGoesOnWithTheNextBatch) {
  Bench bench = {.config = SixSteps(OnAnomaly::kSkip), .bad = {3}};
  EXPECT_TRUE(TrainRank(&bench, LoneCommunicator()).ok());
  EXPECT_THAT(bench.told, ElementsAre(HasSubstr("skipped")));
  EXPECT_THAT(bench.batches, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(bench.counts, ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_THAT(bench.saved, ElementsAre(2, 4, 6));
}

TEST(TrainerAnomalyTest, RollBackTakesTheBatchesAfterTheBadOne) {
  Bench bench = {.config = SixSteps(OnAnomaly::kRollBack), .bad = {3, 6}};
  EXPECT_TRUE(TrainRank(&bench, LoneCommunicator()).ok());
  EXPECT_THAT(bench.told,
              ElementsAre(HasSubstr("step 4: the loss is inf; rolled back to "
                                    "step 2"),
                          HasSubstr("step 5: the loss is inf; rolled back to "
                                    "step 4")));
  EXPECT_TRUE(bench.rolled_back_exactly);
  EXPECT_THAT(bench.batches, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
}

TEST(TrainerAnomalyTest, TooManyEndTheRun) {
  Bench bench = {.config = SixSteps(OnAnomaly::kRollBack),
                 .bad = {3, 4, 5, 6, 7}};
  bench.config.train.max_anomalies = 2;
  EXPECT_THAT(TrainRank(&bench, LoneCommunicator()).message(),
              HasSubstr("that is anomaly 3 and train.max_anomalies is 2"));
  EXPECT_EQ(bench.told.size(), 2u);
}

TEST(TrainerStopTest, AWishOfOneRankStopsAllAfterASave) {
  Bench bench = {
      .config = SixSteps(OnAnomaly::kStop), .wish_at = 3, .wisher = 1};
  bench.config.mesh.tensor = 2;
  RunRanks(2, [&](std::unique_ptr<Communicator> world) {
    EXPECT_TRUE(TrainRank(&bench, std::move(world)).ok());
  });
  EXPECT_THAT(bench.stopped, ElementsAre(7, 3));
  EXPECT_THAT(bench.saved, ElementsAre(2, 3));
}

}  // namespace
}  // namespace lorica
