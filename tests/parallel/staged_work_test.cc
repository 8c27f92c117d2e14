#include "parallel/staged_work.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

constexpr int kRanks = 3;

TEST(StagedWorkTest, AStageBeginsWhenAllRanksHaveEndedTheOneBefore) {
  std::atomic<int> ended[2] = {0, 0};
  RunRanks(kRanks, [&](std::unique_ptr<Communicator> world) {
    const auto stage = [&](int number) {
      return [&, number](const std::vector<std::string>& heard)
                 -> absl::StatusOr<std::string> {
        if (number > 0) {
          EXPECT_EQ(ended[number - 1], kRanks);
        }
        absl::SleepFor(absl::Milliseconds(20 * world->rank()));
        if (number < 2) ++ended[number];
        return absl::StrCat(absl::StrJoin(heard, ""), number, ".",
                            world->rank(), " ");
      };
    };
    StagedWork work({stage(0), stage(1),
                     [](const std::vector<std::string>& heard)
                         -> absl::StatusOr<std::string> {
                       EXPECT_EQ(heard[1], "0.0 0.1 0.2 1.1 ");
                       return "";
                     }},
                    world.get());
    int looks = 0;
    std::optional<absl::Status> outcome;
    while (!outcome.has_value()) {
      outcome = work.Advance(Patience::kLook);
      ++looks;
    }
    EXPECT_TRUE(outcome->ok());
    EXPECT_GE(looks, 3);
  });
}

TEST(StagedWorkTest, TheLowestRankThatFailedEndsTheWorkOfAll) {
  std::atomic<int> begun = 0;
  RunRanks(kRanks, [&](std::unique_ptr<Communicator> world) {
    StagedWork work(
        {[&](const auto&) -> absl::StatusOr<std::string> {
           if (world->rank() == 0) return "";
           return absl::DataLossError(absl::StrCat("disk ", world->rank()));
         },
         [&](const auto&) -> absl::StatusOr<std::string> {
           ++begun;
           return "";
         }},
        world.get());
    const auto outcome = work.Advance(Patience::kWait);
    ASSERT_TRUE(outcome.has_value());
    EXPECT_EQ(*outcome, absl::DataLossError("rank 1: disk 1"));
  });
  EXPECT_EQ(begun, 0);
}

TEST(StagedWorkTest, AWorkThatIsLeftIsWaitedFor) {
  std::atomic<bool> ended = false;
  {
    const auto world = LoneCommunicator();
    const StagedWork work({[&](const auto&) -> absl::StatusOr<std::string> {
                            absl::SleepFor(absl::Milliseconds(30));
                            ended = true;
                            return "";
                          }},
                          world.get());
  }
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace lorica
