#include "parallel/replicas.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

// Verifies, on every rank, two tensors of which `odd_rank` has the last bit
// changed; none with -1.
void ExpectOn(int ranks, int odd_rank, const absl::Status& expected) {
  RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    std::vector<float> values(1000, 1.0f);
    if (world->rank() == odd_rank) values[999] = 1.0f + 0x1p-23f;
    const Tensor same = Tensor::Zeros(device.get(), {3}, DType::kF32);
    const Tensor maybe =
        Tensor::FromHost<float>(device.get(), {10, 100}, values);
    EXPECT_EQ(VerifyReplicas("the adapter", {same, maybe}, *world), expected);
  });
}

TEST(ReplicasTest, EqualReplicasPass) {
  ExpectOn(1, -1, absl::OkStatus());
  ExpectOn(4, -1, absl::OkStatus());
}

TEST(ReplicasTest, ABitOfDifferenceIsNamedOnEveryRank) {
  ExpectOn(3, 1,
           absl::InternalError("the adapter is not the same on all 3 ranks "
                               "that hold it: rank 1 differs"));
}

}  // namespace
}  // namespace lorica
