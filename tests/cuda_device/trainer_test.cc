// Ten steps on real GPUs against the same steps on CPUs.
#include <gtest/gtest.h>

#include "parallel/nccl_communicator.h"
#include "tests/cuda_device/devices.h"
#include "tests/launch/golden_training.h"

namespace lorica {
namespace {

class GpuTrainerTest : public testing::Test {
 protected:
  static void Follow(const MeshConfig& mesh) {
    SkipWithoutGpus(mesh.data * mesh.tensor);
    if (IsSkipped()) return;
    const RunConfig f32 = GoldenRun(mesh, DType::kF32);
    const Curve cpu = TrainGoldenOnCpu(f32);
    ExpectSameButForRounding(TrainGolden(OpenGpu, f32), cpu);
    // As far from F32 as rounding takes the CPU.
    const RunConfig bf16 = GoldenRun(mesh, DType::kBF16);
    EXPECT_LT(Distance(TrainGolden(OpenGpu, bf16), cpu),
              2.0 * Distance(TrainGoldenOnCpu(bf16), cpu));
  }

  static void FollowReplayed(const MeshConfig& mesh) {
    SkipWithoutGpus(mesh.data * mesh.tensor);
    if (IsSkipped()) return;
    // Room for six shapes, whose first passes are rehearsals.
    const int64_t replayed_at_least = 20 / mesh.data - 2 * 3;
    RunConfig f32 = GoldenRun(mesh, DType::kF32);
    const Curve cpu = TrainGoldenOnCpu(f32);
    f32.pass_graphs = 8;
    const Curve gpu = TrainGolden(OpenGpu, f32);
    ExpectSameButForRounding(gpu, cpu);
    EXPECT_GE(gpu.passes.replayed, replayed_at_least);
    RunConfig bf16 = GoldenRun(mesh, DType::kBF16);
    const Curve plain = TrainGolden(OpenGpu, bf16);
    bf16.pass_graphs = 8;
    const Curve replayed = TrainGolden(OpenGpu, bf16);
    EXPECT_LT(Distance(replayed, cpu), 2.0 * Distance(plain, cpu));
    EXPECT_GE(replayed.passes.replayed, replayed_at_least);
  }
};

TEST_F(GpuTrainerTest, TenStepsFollowTheCpuOnOneGpu) { Follow({}); }

TEST_F(GpuTrainerTest, TenStepsFollowTheCpuOnTwoTensorRanks) {
  Follow({.tensor = 2});
}

TEST_F(GpuTrainerTest, TenStepsFollowTheCpuOnFourGpus) {
  Follow({.data = 2, .tensor = 2, .tensor_sequence = true});
}

// To the last bit only as far as the library multiplies by equal algorithms at
// the two runs' addresses.
TEST_F(GpuTrainerTest, PassesOfGraphsFollowTheCpu) { FollowReplayed({}); }

TEST_F(GpuTrainerTest, PassesOfGraphsFollowTheCpuOnTwoTensorRanks) {
  FollowReplayed({.tensor = 2});
}

TEST_F(GpuTrainerTest, PassesOfGraphsFollowTheCpuOnFourGpus) {
  FollowReplayed({.data = 2,
                  .tensor = 2,
                  .tensor_sequence = true,
                  .gradient_bucket_bytes = 1});
}

// Or ranks would talk by way of the host, with the same results.
TEST(GpuRanksTest, TalkByNccl) {
  const OpenDeviceCollectives collectives = NcclCollectives();
  if (collectives == nullptr) SkipWithoutGpus(2);
  if (testing::Test::IsSkipped()) return;
  EXPECT_NE(collectives, nullptr)
      << "lorica is built without NCCL; set NCCL_ROOT and configure again";
}

TEST_F(GpuTrainerTest, DataRanksChangeNoBit) {
  SkipWithoutGpus(2);
  if (IsSkipped()) return;
  const Curve one = TrainGolden(OpenGpu, GoldenRun({}, DType::kBF16));
  const Curve two = TrainGolden(OpenGpu, GoldenRun({.data = 2}, DType::kBF16));
  EXPECT_EQ(two.losses, one.losses);
  EXPECT_EQ(two.grad_norms, one.grad_norms);
}

}  // namespace
}  // namespace lorica
