// Ten steps on GPUs of the stand-ins for CUDA and NCCL, kernels on the
// simulator, against the same steps on CPUs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "launch/base_model.h"
#include "model/peft_adapter.h"
#include "parallel/nccl_communicator.h"
#include "runtime/cuda/queue.h"
#include "tests/launch/golden_training.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/cuda_sim/simulator.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"
#include "tests/support/tolerance.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

std::unique_ptr<Device> OpenFakeGpu(int rank) {
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenCudaDevice({.index = rank, .allocation = Allocation::kDirect});
  return device.ok() ? *std::move(device) : nullptr;
}

// Two golden runs in F32, of ten steps at most: either is as near to exact
// arithmetic as rounding lets, so they are apart by twice that at most.
void ExpectSameButForRounding(const Curve& a, const Curve& b,
                              const GoldenModel& model) {
  EXPECT_EQ(a.losses.size(), b.losses.size());
  const Deviation bound = F32Bound(model, 10);
  for (const Curve* curve : {&a, &b}) {
    SCOPED_TRACE(curve == &a ? "the first" : "the second");
    const Deviation of = DeviationFromExact(*curve, model);
    EXPECT_LT(of.loss, bound.loss);
    EXPECT_LT(of.grad_norm, bound.grad_norm);
  }
}

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

// Passes of graphs and those given op by op are the same to the last bit. The
// golden micro-batches are of three shapes, with other records in every one:
// one of the first shape, six of the second, one of the third, and again.
class PassGraphsTest : public testing::Test {
 protected:
  static constexpr int64_t kShapes = 3;
  static constexpr int64_t kBuckets = 2;  // One a layer, where there are any.

  static RunConfig Config(int64_t steps, int graphs, DType dtype = DType::kF32,
                          const MeshConfig& mesh = {}) {
    RunConfig config = GoldenRun(mesh, dtype);
    config.train.steps = steps;
    config.pass_graphs = graphs;
    return config;
  }

  static Curve Train(const RunConfig& config,
                     const cuda_fakes::Settings& settings,
                     GoldenModel model = {}) {
    cuda_fakes::Reset(settings);
    model.folder = "heads_5_5_untied";
    Curve curve = TrainGolden(OpenFakeGpu, config, model);
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
    // What a graph uses of memory that is gone.
    EXPECT_THAT(cuda_sim::TakeReports(), IsEmpty());
    EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
    return curve;
  }

  // The first steps of `plain`.
  static void ExpectSame(const Curve& curve, Curve plain) {
    plain.losses.resize(curve.losses.size());
    plain.grad_norms.resize(curve.grad_norms.size());
    EXPECT_EQ(curve.losses, plain.losses);
    EXPECT_EQ(curve.grad_norms, plain.grad_norms);
  }

  // Ten steps without graphs.
  static const Curve& Plain() {
    static const Curve* const curve = [] {
      auto* plain = new Curve(Train(Config(10, 0), {}));
      EXPECT_EQ(cuda_fakes::GraphLaunches(), 0);
      return plain;
    }();
    return *curve;
  }
};

// A shape's first pass is a rehearsal, its second is recorded and run.
TEST_F(PassGraphsTest, ChangeNoBitOfTenSteps) {
  const Curve curve =
      Train(Config(10, 8), {.policy = Policy::kLazyRandom, .seed = 11});
  ExpectSame(curve, Plain());
  EXPECT_EQ(curve.passes.passes, 20);
  EXPECT_EQ(curve.passes.recorded, kShapes);
  EXPECT_EQ(curve.passes.replayed, 20 - kShapes);
}

TEST_F(PassGraphsTest, ChangeNoBitInAnyOrderOfStreams) {
  for (const Policy policy : {Policy::kEager, Policy::kLazyLast}) {
    const Curve curve = Train(Config(4, 8), {.policy = policy});
    EXPECT_EQ(cuda_fakes::GraphLaunches(), curve.passes.replayed) << policy;
    EXPECT_EQ(curve.passes.replayed, 5) << policy;
    ExpectSame(curve, Plain());
  }
}

TEST_F(PassGraphsTest, ChangeNoBitWhereALibraryComputesAttention) {
  const cuda_fakes::Settings settings = {.policy = Policy::kLazyLast,
                                         .sdpa_workspace_bytes = 1024};
  RunConfig config = Config(2, 0, DType::kBF16);
  const Curve plain = Train(config, settings);
  config.pass_graphs = 8;
  const Curve curve = Train(config, settings);
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.replayed, 2);
}

// Masks are those of the pass's rows, whatever rows it was recorded with.
TEST_F(PassGraphsTest, ChangeNoBitWithDropout) {
  constexpr float kDropout = 0.25f;
  const Curve plain = Train(Config(2, 0), {}, {.dropout = kDropout});
  EXPECT_NE(plain.losses[0], Train(Config(1, 0), {}).losses[0]);
  const Curve curve =
      Train(Config(2, 8), {.policy = Policy::kLazyLast}, {.dropout = kDropout});
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.replayed, 2);
}

// Gradients are summed over the ranks between the passes. What backward
// computes again changes no bit either.
TEST_F(PassGraphsTest, ChangeNoBitOnTwoDataRanks) {
  RunConfig config = Config(4, 8, DType::kF32, {.data = 2});
  config.recompute = Recompute::kBlock;
  const Curve curve = Train(config, {.policy = Policy::kLazyLast});
  ExpectSame(curve, Plain());
  EXPECT_EQ(curve.passes.passes, 4);
  EXPECT_GT(curve.passes.replayed, 0);
}

// The collectives of activations and losses are part of a graph, count as if
// each were called, and find their peers under the same numbers.
TEST_F(PassGraphsTest, ChangeNoBitOnTensorRanks) {
  const MeshConfig mesh = {.tensor = 2};
  const Curve plain = Train(Config(2, 0, DType::kF32, mesh), {});
  const int64_t collectives = cuda_fakes::Collectives();
  for (const Policy policy : cuda_fakes::kPolicies) {
    const Curve curve =
        Train(Config(2, 8, DType::kF32, mesh), {.policy = policy, .seed = 3});
    ExpectSame(curve, plain);
    EXPECT_EQ(curve.passes.replayed, 2) << policy;
    EXPECT_EQ(curve.tensor_traffic, plain.tensor_traffic) << policy;
    EXPECT_EQ(cuda_fakes::Collectives(), collectives) << policy;
    EXPECT_EQ(cuda_fakes::GraphLaunches(), 2 * 2) << policy;
  }
}

// Three ranks split rows unevenly, which they then send to each other.
TEST_F(PassGraphsTest, ChangeNoBitWhereTensorRanksSendEachOtherRows) {
  const MeshConfig mesh = {.tensor = 3, .tensor_sequence = true};
  const Curve plain = Train(Config(2, 0, DType::kF32, mesh), {});
  const Curve curve =
      Train(Config(2, 8, DType::kF32, mesh), {.policy = Policy::kLazyLast});
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.replayed, 3);
  EXPECT_EQ(curve.tensor_traffic, plain.tensor_traffic);
}

// A bucket a layer: each pass is the last of its step and in parts, the sums
// start between them.
TEST_F(PassGraphsTest, ChangeNoBitOfSequenceParallelReplicas) {
  MeshConfig mesh = {.data = 2, .tensor = 2, .tensor_sequence = true};
  const Curve plain = Train(Config(3, 0, DType::kF32, mesh), {});
  mesh.gradient_bucket_bytes = 1;
  const Curve curve =
      Train(Config(3, 8, DType::kF32, mesh), {.policy = Policy::kLazyLast});
  EXPECT_EQ(cuda_fakes::GraphLaunches(), 4 * 2 * (kBuckets + 1));
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.passes, 3);
  EXPECT_EQ(curve.passes.replayed, 2);
  EXPECT_EQ(curve.tensor_traffic, plain.tensor_traffic);
}

// Only the last of a step's micro-batches is in parts, and a shape of its own.
// Ranks 0 and 1 replay 1 and 2 of the others, 2 and 1 of these.
TEST_F(PassGraphsTest, ChangeNoBitWhereSumsStartDuringBackward) {
  RunConfig config = Config(3, 0, DType::kF32, {.data = 2});
  config.train.global_batch *= 2;
  const Curve plain = Train(config, {});
  config.pass_graphs = 8;
  config.mesh.gradient_bucket_bytes = 1;
  const Curve curve = Train(config, {.policy = Policy::kLazyLast});
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.passes, 6);
  EXPECT_EQ(curve.passes.replayed, 3);
  EXPECT_EQ(cuda_fakes::GraphLaunches(), 3 + 3 * (kBuckets + 1));
}

// By the launches of graphs before: a rehearsal has none, then a pass has
// three.
TEST_F(PassGraphsTest, LayersAreToldOfBetweenThePartsOfAPass) {
  cuda_fakes::Reset({});
  std::vector<std::pair<int64_t, int64_t>> told;
  RunRanks(1, [&](std::unique_ptr<Communicator> world) {
    const auto session = Session::Over(OpenFakeGpu(0), std::move(world),
                                       Placement{}, MeshConfig{});
    ASSERT_TRUE(session.ok());
    const Golden golden("heads_5_5_untied");
    const auto base = OpenBaseModel(golden.model_path(), **session);
    const std::string directory = golden.adapter_path("adapter_all");
    const auto peft = ReadPeftAdapter(directory);
    const auto adapter =
        LoadAdapter(*base, *peft, directory, DType::kF32, **session);
    const auto gpt = LoadGpt(*base, DType::kF32, kTensorParallel, **session);
    const TokenBatch batch =
        golden.micro_batches("curve_batch.safetensors").front();
    const TrainingRows rows = CollectTrainingRows(
        batch, {0, std::ssize(batch.segments)}, gpt->selection(), 0);
    PassRecordings passes(*gpt, **adapter, Recompute::kNone,
                          (*session)->device(), 1);
    const auto tell = [&](int64_t layer) {
      told.emplace_back(layer, cuda_fakes::GraphLaunches());
    };
    for (int pass = 0; pass < 3; ++pass) {
      passes.Train(rows, 1.0f, {.layers = {1, 0}, .tell = tell});
    }
  });
  EXPECT_THAT(told, ElementsAre(Pair(1, 0), Pair(0, 0), Pair(1, 1), Pair(0, 2),
                                Pair(1, 4), Pair(0, 5)));
}

TEST_F(PassGraphsTest, TensorRanksThatCannotRecordTogetherAreToldWhy) {
  cuda_fakes::Reset({.sdpa_workspace_bytes = 1024});
  RunRanks(2, [](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Device> device = OpenFakeGpu(world->rank());
    const auto lack = [&] {
      return std::string(CheckRecords(*device, *world).message());
    };
    EXPECT_THAT(lack(), HasSubstr("built without NCCL"));
    world->SetDeviceCollectives(NcclCollectives(), {});
    EXPECT_EQ(lack(), "");
    if (world->rank() == 1) {
      cuda::Of(device->queue())->attention->Choose(AttentionKernels::kOwn);
    }
    EXPECT_THAT(lack(), HasSubstr("compute attention by a library"));
  });
}

TEST_F(PassGraphsTest, ChangeNoBitOfSeveralPassesAMicroBatch) {
  const Curve plain = Train(Config(4, 0), {}, {.pass_tokens = 16});
  const Curve curve = Train(Config(4, 8), {}, {.pass_tokens = 16});
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.passes, 17);
  EXPECT_GT(curve.passes.replayed, 0);
}

TEST_F(PassGraphsTest, TheShapeUnusedForLongestMakesRoom) {
  const Curve curve = Train(Config(8, 2), {});
  ExpectSame(curve, Plain());
  EXPECT_EQ(curve.passes.recorded, 2);
  EXPECT_EQ(curve.passes.replayed, 10);
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
