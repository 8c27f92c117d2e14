// The simulator reports what is wrong with a kernel, and nothing else.
#include "tests/support/cuda_sim/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "tests/support/cuda_sim/planted_bugs.h"

namespace lorica::cuda_sim {

std::ostream& operator<<(std::ostream& out, const PlantedBug& bug) {
  return out << bug.name;
}

namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> ReportsOf(const PlantedBug& bug, Order order) {
  constexpr size_t kBytes = kBugThreads * sizeof(float);
  auto* x = static_cast<float*>(Allocate(kBytes));
  for (int i = 0; i < kBugThreads; ++i) x[i] = static_cast<float>(i);
  MarkWritten(x, kBytes);
  SetOrder(order, 1);
  RunPlantedBug(bug, x);
  Free(x);
  return TakeReports();
}

class SimulatorTest : public ::testing::TestWithParam<PlantedBug> {};

TEST_P(SimulatorTest, TellsWhatIsWrongInEveryOrder) {
  for (const Order order : {Order::kForward, Order::kReverse, Order::kRandom}) {
    const std::vector<std::string> reports = ReportsOf(GetParam(), order);
    if (*GetParam().report == '\0') {
      EXPECT_THAT(reports, IsEmpty());
    } else {
      EXPECT_THAT(reports, Contains(HasSubstr(GetParam().report)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PlantedBugs, SimulatorTest,
                         ::testing::ValuesIn(kPlantedBugs,
                                             kPlantedBugs + kNumPlantedBugs),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lorica::cuda_sim
