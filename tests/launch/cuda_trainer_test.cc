// Ten steps on GPUs of the stand-ins for CUDA and NCCL, kernels on the
// simulator, against the same steps on CPUs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <ostream>
#include <thread>
#include <vector>

#include "tests/launch/fake_gpu.h"
#include "tests/launch/golden_training.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/cuda_sim/simulator.h"
#include "tests/support/tolerance.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::IsEmpty;

struct Case {
  MeshConfig mesh;
  Policy policy;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "data" << c.mesh.data << "_tensor" << c.mesh.tensor
             << (c.mesh.tensor_sequence ? "_sequence_" : "_") << c.policy;
}

class CudaTrainerTest : public testing::TestWithParam<Case> {};

TEST_P(CudaTrainerTest, TenStepsFollowTheCpu) {
  const RunConfig config = GoldenRun(GetParam().mesh, DType::kF32);
  const Curve cpu = TrainGoldenOnCpu(config);
  cuda_fakes::Reset({.policy = GetParam().policy, .seed = 7});
  const Curve gpu = TrainGolden(OpenFakeGpu, config);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
  ASSERT_EQ(cpu.losses.size(), 10u);
  ExpectSameButForRounding(gpu, cpu, {});
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const MeshConfig meshes[] = {
      {.data = 1, .tensor = 1},
      {.data = 2, .tensor = 1},
      {.data = 1, .tensor = 2},
      {.data = 2, .tensor = 2},
      {.data = 1, .tensor = 4},
      {.data = 1, .tensor = 3, .tensor_sequence = true},
      {.data = 2, .tensor = 2, .tensor_sequence = true}};
  for (const MeshConfig& mesh : meshes) {
    for (const Policy policy : cuda_fakes::kPolicies) {
      cases.push_back({mesh, policy});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Meshes, CudaTrainerTest, testing::ValuesIn(Cases()),
                         testing::PrintToStringParamName());

void ExpectCurveOfCpus(const char* folder) {
  const GoldenModel model = {.folder = folder};
  RunConfig config = GoldenRun({.tensor = 3}, DType::kF32);
  config.train.steps = 3;
  const Curve cpu = TrainGoldenOnCpu(config, model);
  cuda_fakes::Reset({.policy = Policy::kLazyRandom, .seed = 7});
  const Curve gpu = TrainGolden(OpenFakeGpu, config, model);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  ExpectSameButForRounding(gpu, cpu, model);
}

// Their place is between the frozen product and the adapter's border.
TEST(CudaTrainerTest, BiasesAreAddedOnce) {
  ExpectCurveOfCpus("heads_6_2_biased_qwen2");
}

// LayerNorm and GELU; q, k and v in one matrix with one adapter; biases that
// one of the ranks adds to a sum.
TEST(CudaTrainerTest, AGpt2TrainsAsOnCpus) {
  ExpectCurveOfCpus("heads_7_gpt2");
}

// BF16 rounds differently on the two devices. Where every step is off by one
// rounding of the loss, in either direction, ten of them lead sqrt(10) away.
TEST(CudaTrainerBf16Test, StaysAsNearToF32AsRoundingLets) {
  const RunConfig f32 = GoldenRun({.tensor = 2}, DType::kF32);
  const RunConfig bf16 = GoldenRun({.tensor = 2}, DType::kBF16);
  const Curve exact = TrainGoldenOnCpu(f32);
  const double largest =
      *std::max_element(exact.losses.begin(), exact.losses.end());
  const double bound = std::sqrt(static_cast<double>(exact.losses.size())) *
                       UnitRoundoff(DType::kBF16) * largest;
  EXPECT_LT(Distance(TrainGoldenOnCpu(bf16), exact), bound);
  cuda_fakes::Reset({});
  EXPECT_LT(Distance(TrainGolden(OpenFakeGpu, bf16), exact), bound);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// A bucket a layer, on a mesh whose tensor groups talk meanwhile. Between two
// ranks both orders of addition give the same bits, and these few gradients are
// gathered or summed whole: one collective a sum.
TEST(CudaTrainerTest, SummingDuringBackwardChangesNoBit) {
  const GoldenModel model = {.folder = "heads_5_5_untied"};
  constexpr int64_t kLayers = 2;
  constexpr int64_t kSteps = 2;
  const MeshConfig mesh = {.data = 2, .tensor = 2, .tensor_sequence = true};
  RunConfig config = GoldenRun(mesh, DType::kF32);
  config.train.steps = kSteps;
  cuda_fakes::Reset({});
  const Curve late = TrainGolden(OpenFakeGpu, config, model);
  const int64_t collectives = cuda_fakes::Collectives();
  config.mesh.gradient_bucket_bytes = 1;
  for (const bool deterministic : {true, false}) {
    config.mesh.deterministic = deterministic;
    for (const Policy policy : cuda_fakes::kPolicies) {
      // The tree has more to order.
      if (!deterministic && policy != Policy::kLazyRandom) continue;
      cuda_fakes::Reset({.policy = policy, .seed = 5});
      const Curve early = TrainGolden(OpenFakeGpu, config, model);
      EXPECT_EQ(early.losses, late.losses) << policy;
      EXPECT_EQ(early.grad_norms, late.grad_norms) << policy;
      EXPECT_EQ(cuda_fakes::Collectives(),
                collectives + kSteps * (kLayers - 1) * mesh.tensor);
      // What is gathered goes elsewhere.
      EXPECT_EQ(cuda_fakes::RegisteredCalls(),
                deterministic ? 0 : kSteps * kLayers * mesh.data * mesh.tensor);
      EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
      EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
    }
  }
}

// A layer's gradients are complete, and their bucket may go, with the last
// pass.
TEST(CudaTrainerTest, SeveralPassesAMicroBatchFollowTheCpu) {
  const GoldenModel model = {.folder = "heads_5_5_untied", .pass_tokens = 16};
  RunConfig config = GoldenRun({.data = 2}, DType::kF32);
  config.train.steps = 3;
  config.mesh.gradient_bucket_bytes = 1;
  cuda_fakes::Reset({.policy = Policy::kLazyRandom, .seed = 3});
  const Curve gpu = TrainGolden(OpenFakeGpu, config, model);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  ExpectSameButForRounding(gpu, TrainGoldenOnCpu(config, model), model);
}

// The first micro-batch's work, loss included, is given to the device and the
// second's after it, before anything is waited for.
TEST(CudaTrainerTest, OneRankWaitsForNothingBetweenMicroBatches) {
  RunConfig config = GoldenRun({}, DType::kF32);
  config.train.steps = 2;
  for (const int graphs : {0, 4}) {
    config.pass_graphs = graphs;
    std::vector<int64_t> waits;
    cuda_fakes::Reset({.policy = Policy::kLazyLast});
    TrainGolden(OpenFakeGpu, config,
                {.folder = "heads_5_5_untied", .before_micro_batch = [&] {
                   waits.push_back(cuda_fakes::HostWaits());
                 }});
    ASSERT_EQ(waits.size(), 4u);
    EXPECT_EQ(waits[1], waits[0]) << graphs;
    EXPECT_GT(waits[2], waits[1]) << graphs;
    EXPECT_EQ(waits[3], waits[2]) << graphs;
  }
}

// An adapter that the weights were loaded for is multiplied with them. Forward
// q, k and v take 2 products then instead of 7, o 2 of 3, gate and up 2 of 5,
// down 2 of 3; backward each of the four dx takes one instead of two, and below
// the lowest layer none is due.
TEST(CudaTrainerTest, AResidentAdapterSavesTheProductsItHadToItself) {
  constexpr double kLayers = 2;
  constexpr double kMicroBatches = 2;
  GoldenModel model = {.folder = "heads_5_5_untied"};
  RunConfig config = GoldenRun({}, DType::kF32);
  config.train.steps = 1;
  const auto train = [&](double* products) {
    cuda_fakes::Reset({});
    const Curve curve = TrainGolden(OpenFakeGpu, config, model);
    *products = cuda_fakes::DeviceMicroseconds();
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
    EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
    return curve;
  };
  double resident_products = 0;
  double apart_products = 0;
  const Curve resident = train(&resident_products);
  // Inputs that are not kept take no xa along with them.
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock}) {
    config.recompute = recompute;
    double products = 0;
    EXPECT_EQ(train(&products).grad_norms, resident.grad_norms);
  }
  config.recompute = Recompute::kCheap;
  model.place = AdapterPlace::kApart;
  const Curve apart = train(&apart_products);
  EXPECT_EQ(apart_products - resident_products,
            kMicroBatches * (10 * kLayers + 4 * kLayers - 1));
  ExpectSameButForRounding(apart, resident, model);
}

// The same where ranks share each micro-batch's work: what they need of each
// other goes from device to device.
TEST(CudaTrainerTest, TensorRanksWaitForNothingBetweenMicroBatches) {
  for (const bool sequence : {false, true}) {
    RunConfig config =
        GoldenRun({.tensor = 2, .tensor_sequence = sequence}, DType::kF32);
    config.train.steps = 2;
    std::mutex mutex;
    std::map<std::thread::id, std::vector<int64_t>> waits_of;
    cuda_fakes::Reset({.policy = Policy::kLazyLast});
    TrainGolden(OpenFakeGpu, config,
                {.folder = "heads_5_5_untied", .before_micro_batch = [&] {
                   const std::lock_guard<std::mutex> lock(mutex);
                   waits_of[std::this_thread::get_id()].push_back(
                       cuda_fakes::HostWaits());
                 }});
    EXPECT_EQ(waits_of.size(), 2u);
    for (const auto& [rank, waits] : waits_of) {
      ASSERT_EQ(waits.size(), 4u);
      EXPECT_EQ(waits[1], waits[0]) << sequence;
      EXPECT_GT(waits[2], waits[1]) << sequence;
      EXPECT_EQ(waits[3], waits[2]) << sequence;
    }
  }
}

TEST(CudaTrainerTest, ReportsTheMemoryOfGpusAlone) {
  RunConfig config = GoldenRun({}, DType::kF32);
  config.train.steps = 2;
  EXPECT_THAT(TrainGoldenOnCpu(config).peak_device_bytes, testing::Each(0));
  cuda_fakes::Reset({});
  const std::vector<int64_t> bytes =
      TrainGolden(OpenFakeGpu, config).peak_device_bytes;
  EXPECT_THAT(bytes, testing::Each(testing::Gt(0)));
  EXPECT_GE(bytes.at(1), bytes.at(0));
}

TEST(CudaTrainerTest, DataRanksChangeNoBit) {
  RunConfig config = GoldenRun({.data = 1}, DType::kF32);
  config.train.steps = 3;
  cuda_fakes::Reset({});
  const Curve one = TrainGolden(OpenFakeGpu, config);
  config.mesh.data = 2;
  const Curve two = TrainGolden(OpenFakeGpu, config);
  EXPECT_EQ(two.losses, one.losses);
  EXPECT_EQ(two.grad_norms, one.grad_norms);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

}  // namespace
}  // namespace lorica
