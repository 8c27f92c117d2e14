#include "parallel/local_communicator.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "tests/parallel/communicator_suite.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using Param = std::tuple<CommunicatorCase, int>;

class LocalCommunicatorSuite : public testing::TestWithParam<Param> {};

TEST_P(LocalCommunicatorSuite, Holds) {
  const auto& [test_case, ranks] = GetParam();
  RunRanks(ranks, [check = test_case.check](
                      std::unique_ptr<Communicator> world) { check(*world); });
}

std::string Name(const testing::TestParamInfo<Param>& param) {
  return std::string(std::get<0>(param.param).name) + "On" +
         std::to_string(std::get<1>(param.param));
}

INSTANTIATE_TEST_SUITE_P(
    Threads, LocalCommunicatorSuite,
    testing::Combine(testing::ValuesIn(CommunicatorCases()),
                     testing::Values(1, 2, 3, 4, 5, 8)),
    Name);

TEST(LocalCommunicatorTest, ALoneRankIsAGroup) {
  const std::unique_ptr<Communicator> lone = LoneCommunicator();
  EXPECT_EQ(lone->rank(), 0);
  EXPECT_EQ(lone->size(), 1);
  EXPECT_EQ(lone->Split(3, 5)->size(), 1);
}

// Every array is cut in many blocks.
TEST(LocalCommunicatorTest, HoldsWithSmallSlots) {
  for (const CommunicatorCase& test_case : CommunicatorCases()) {
    SCOPED_TRACE(test_case.name);
    RunRanks(3,
             [&test_case](std::unique_ptr<Communicator> world) {
               test_case.check(*world);
             },
             {.slot_bytes = 32 << 10});
  }
}

TEST(LocalCommunicatorDeathTest, ARankThatLeavesEndsThoseThatWait) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(RunRanks(3,
                        [](std::unique_ptr<Communicator> world) {
                          if (world->rank() != 1) world->Barrier();
                        }),
               "rank 1 of a group of 3 has left while rank [02] waits");
}

TEST(LocalCommunicatorDeathTest, MisuseIsFatal) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto on_two = [](void (*body)(Communicator&, Device*)) {
    RunRanks(2, [body](std::unique_ptr<Communicator> world) {
      const std::unique_ptr<Device> device = OpenTestDevice();
      body(*world, device.get());
    });
  };
  EXPECT_DEATH(on_two([](Communicator& world, Device* device) {
                 const Tensor t = Tensor::Zeros(device, {4, 2}, DType::kF32);
                 world.ReduceScatterRows(t, {2, 3}, Purpose::kActivation);
               }),
               "Check failed");
  EXPECT_DEATH(on_two([](Communicator& world, Device* device) {
                 const Tensor t = Tensor::Zeros(device, {4, 2}, DType::kF32);
                 world.AllGatherRows(t, {2, 2}, Purpose::kActivation);
               }),
               "Check failed");
  EXPECT_DEATH(
      on_two([](Communicator& world, Device* device) {
        Tensor t = Tensor::Zeros(device, {4, 4}, DType::kF32).Cols({0, 2});
        world.AllReduceSum(&t, Purpose::kActivation);
      }),
      "rows that are not dense");
  EXPECT_DEATH(on_two([](Communicator& world, Device* device) {
                 Tensor t = Tensor::Empty(device, {4}, DType::kF16);
                 world.AllReduceSum(&t, Purpose::kActivation);
               }),
               "no sum over ranks of F16");
}

}  // namespace
}  // namespace lorica
