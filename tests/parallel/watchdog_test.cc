#include "parallel/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

TEST(WatchdogTest, CollectivesThatEndAreLeftAlone) {
  RunRanks(3, [](std::unique_ptr<Communicator> world) {
    Watchdog watchdog(absl::Seconds(2));
    world->SetWatchdog(&watchdog);
    for (int round = 0; round < 110; ++round) {
      // The others wait nearly all the time: many short collectives outlast
      // the timeout, none does alone.
      if (world->rank() == 0) absl::SleepFor(absl::Milliseconds(20));
      std::vector<int64_t> values = {round};
      world->AllReduceSum(absl::MakeSpan(values), Purpose::kControl);
    }
    world->SetWatchdog(nullptr);
  });
}

TEST(WatchdogTest, ARankThatWaitsWhenToldToEndSaysWhatFor) {
  testing::internal::CaptureStderr();
  RunRanks(2, [](std::unique_ptr<Communicator> world) {
    Watchdog watchdog(absl::Seconds(60), [] { return true; });
    world->SetWatchdog(&watchdog);
    world->Barrier();
    if (world->rank() == 1) absl::SleepFor(absl::Milliseconds(800));
    world->Barrier();
    world->SetWatchdog(nullptr);
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, testing::ContainsRegex(
                        "rank 0 waited [0-9.]+m?s in barrier 2 \\(control, 0 "
                        "bytes, group of ranks 0 1\\) for rank 1; this "
                        "process was told to end"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

TEST(WatchdogDeathTest, ARankThatDoesNotComeEndsTheOthers) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      RunRanks(3,
               [](std::unique_ptr<Communicator> world) {
                 Watchdog watchdog(absl::Seconds(1));
                 world->SetWatchdog(&watchdog);
                 const std::unique_ptr<Device> device = OpenTestDevice();
                 const std::unique_ptr<Communicator> group =
                     world->Split(world->rank() > 0 ? 1 : 0, world->rank());
                 Tensor tensor = Tensor::Zeros(device.get(), {4}, DType::kF32);
                 group->AllReduceSum(&tensor, Purpose::kActivation);
                 if (world->rank() == 2) absl::SleepFor(absl::Seconds(60));
                 group->AllReduceSum(&tensor, Purpose::kAdapterGrad);
               }),
      testing::ExitedWithCode(Watchdog::kExitCode),
      "rank 1 waited [0-9.]+m?s in all-reduce sum 2 \\(adapter gradient, 16 "
      "bytes, group of ranks 1 2\\) for rank 2; a peer has stopped");
}

}  // namespace
}  // namespace lorica
