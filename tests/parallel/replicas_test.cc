#include "parallel/replicas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

void VerifyOn(int ranks, int odd_rank) {
  RunRanks(ranks, [odd_rank](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    std::vector<float> values(1000, 1.0f);
    if (world->rank() == odd_rank) values[999] = 1.0f + 0x1p-23f;
    const Tensor same = Tensor::Zeros(device.get(), {3}, DType::kF32);
    const Tensor maybe =
        Tensor::FromHost<float>(device.get(), {10, 100}, values);
    VerifyReplicas("the adapter", {same, maybe}, *world);
  });
}

TEST(ReplicasTest, EqualReplicasPass) {
  VerifyOn(1, -1);
  VerifyOn(4, -1);
}

TEST(ReplicasDeathTest, ABitOfDifferenceIsFatalAndNamed) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(VerifyOn(3, 1),
               // As several ranks write at once, without a regular expression.
               testing::HasSubstr("the adapter is not the same on all 3 ranks "
                                  "that hold it: rank 1 differs"));
}

}  // namespace
}  // namespace lorica
