// Training steps as graphs of the CUDA runtime, on its stand-ins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launch/base_model.h"
#include "model/peft_adapter.h"
#include "parallel/nccl_communicator.h"
#include "runtime/cuda/queue.h"
#include "tests/launch/fake_gpu.h"
#include "tests/launch/golden_training.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/cuda_sim/simulator.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

// Steps of graphs and those given op by op are the same to the last bit. The
// golden micro-batches are of three shapes, with other records in every one:
// one of the first shape, six of the second, one of the third, and again. What
// is beside the passes has one shape: it is rehearsed in the first step,
// recorded in the second and replayed in that and the others.
class StepGraphsTest : public testing::Test {
 protected:
  static constexpr const char* kFolder = "heads_5_5_untied";
  static constexpr int64_t kShapes = 3;
  static constexpr int64_t kBuckets = 2;  // One a layer, where there are any.
  // Of a step beside its passes: one for each of two micro-batches, one for the
  // norm and one for the update.
  static constexpr int64_t kBeside = 4;

  static RunConfig Config(int64_t steps, int graphs, DType dtype = DType::kF32,
                          const MeshConfig& mesh = {}) {
    RunConfig config = GoldenRun(mesh, dtype);
    config.train.steps = steps;
    config.pass_graphs = graphs;
    return config;
  }

  static Curve Train(const RunConfig& config,
                     const cuda_fakes::Settings& settings,
                     const GoldenModel& model = {.folder = kFolder}) {
    cuda_fakes::Reset(settings);
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
TEST_F(StepGraphsTest, ChangeNoBitOfTenSteps) {
  const Curve curve =
      Train(Config(10, 8), {.policy = Policy::kLazyRandom, .seed = 11});
  ExpectSame(curve, Plain());
  EXPECT_EQ(curve.passes.passes, 20);
  EXPECT_EQ(curve.passes.recorded, kShapes);
  EXPECT_EQ(curve.passes.replayed, 20 - kShapes);
}

// Every loss is over half of those before it, and eight of them are enough to
// say so: the ninth step makes no update, which the tenth shows.
TEST_F(StepGraphsTest, ChangeNoBitWhereUpdatesAreSkipped) {
  RunConfig config = Config(10, 0);
  config.train.on_anomaly = OnAnomaly::kSkip;
  config.train.outlier_factor = 0.5;
  const Curve plain = Train(config, {});
  config.pass_graphs = 8;
  const Curve curve = Train(config, {.policy = Policy::kLazyLast});
  EXPECT_EQ(cuda_fakes::GraphLaunches(),
            curve.passes.replayed + 9 * kBeside - 2);
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.losses[8], Plain().losses[8]);
  EXPECT_NE(curve.losses[9], Plain().losses[9]);
}

TEST_F(StepGraphsTest, ChangeNoBitInAnyOrderOfStreams) {
  for (const Policy policy : {Policy::kEager, Policy::kLazyLast}) {
    const Curve curve = Train(Config(4, 8), {.policy = policy});
    EXPECT_EQ(curve.passes.replayed, 5) << policy;
    EXPECT_EQ(cuda_fakes::GraphLaunches(), 5 + 3 * kBeside) << policy;
    ExpectSame(curve, Plain());
  }
}

TEST_F(StepGraphsTest, ChangeNoBitWhereALibraryComputesAttention) {
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
TEST_F(StepGraphsTest, ChangeNoBitWithDropout) {
  constexpr float kDropout = 0.25f;
  const Curve plain =
      Train(Config(2, 0), {}, {.folder = kFolder, .dropout = kDropout});
  EXPECT_NE(plain.losses[0], Train(Config(1, 0), {}).losses[0]);
  const Curve curve = Train(Config(2, 8), {.policy = Policy::kLazyLast},
                            {.folder = kFolder, .dropout = kDropout});
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.replayed, 2);
}

// Gradients are summed over the ranks between the passes. What backward
// computes again changes no bit either.
TEST_F(StepGraphsTest, ChangeNoBitOnTwoDataRanks) {
  RunConfig config = Config(4, 8, DType::kF32, {.data = 2});
  config.recompute = Recompute::kBlock;
  const Curve curve = Train(config, {.policy = Policy::kLazyLast});
  EXPECT_EQ(curve.passes.passes, 4);
  EXPECT_GT(curve.passes.replayed, 0);
  // Sums are in registered memory, whither gradients go first.
  EXPECT_GE(cuda_fakes::GraphLaunches(),
            curve.passes.replayed + 2 * 3 * (kBeside - 1));
  ExpectSame(curve, Plain());
}

// The collectives of activations and losses are part of a graph, count as if
// each were called, and find their peers under the same numbers.
TEST_F(StepGraphsTest, ChangeNoBitOnTensorRanks) {
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
    EXPECT_EQ(cuda_fakes::GraphLaunches(), 2 * (2 + kBeside)) << policy;
  }
}

// Four ranks share three key/value heads, one of them by a group of its own,
// whose sums are in no graph; nor is the norm, which follows them.
TEST_F(StepGraphsTest, ChangeNoBitWhereTensorRanksShareHeads) {
  const GoldenModel model = {.folder = "heads_9_3_tied_sharded"};
  const MeshConfig mesh = {.tensor = 4};
  const Curve plain = Train(Config(3, 0, DType::kF32, mesh), {}, model);
  const Curve curve = Train(Config(3, 8, DType::kF32, mesh),
                            {.policy = Policy::kLazyLast}, model);
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.tensor_traffic, plain.tensor_traffic);
  EXPECT_EQ(cuda_fakes::GraphLaunches(),
            4 * (curve.passes.replayed + 2 * (kBeside - 1)));
}

// Three ranks split rows unevenly, which they then send to each other.
TEST_F(StepGraphsTest, ChangeNoBitWhereTensorRanksSendEachOtherRows) {
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
TEST_F(StepGraphsTest, ChangeNoBitOfSequenceParallelReplicas) {
  MeshConfig mesh = {.data = 2, .tensor = 2, .tensor_sequence = true};
  const Curve plain = Train(Config(3, 0, DType::kF32, mesh), {});
  mesh.gradient_bucket_bytes = 1;
  const Curve curve =
      Train(Config(3, 8, DType::kF32, mesh), {.policy = Policy::kLazyLast});
  // A bucket is a graph beside the passes as well, in place of a micro-batch.
  EXPECT_EQ(cuda_fakes::GraphLaunches(), 4 * 2 * (kBuckets + 1 + kBuckets + 2));
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.passes, 3);
  EXPECT_EQ(curve.passes.replayed, 2);
  EXPECT_EQ(curve.tensor_traffic, plain.tensor_traffic);
}

// Only the last of a step's micro-batches is in parts, and a shape of its own.
// Ranks 0 and 1 replay 1 and 2 of the others, 2 and 1 of these.
TEST_F(StepGraphsTest, ChangeNoBitWhereSumsStartDuringBackward) {
  RunConfig config = Config(3, 0, DType::kF32, {.data = 2});
  config.train.global_batch *= 2;
  const Curve plain = Train(config, {});
  config.pass_graphs = 8;
  config.mesh.gradient_bucket_bytes = 1;
  const Curve curve = Train(config, {.policy = Policy::kLazyLast});
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.passes, 6);
  EXPECT_EQ(curve.passes.replayed, 3);
  EXPECT_EQ(cuda_fakes::GraphLaunches(),
            3 + 3 * (kBuckets + 1) + 2 * 2 * (1 + kBuckets + 2));
}

// By the launches of graphs before: a rehearsal has none, then a pass has
// three.
TEST_F(StepGraphsTest, LayersAreToldOfBetweenThePartsOfAPass) {
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

TEST_F(StepGraphsTest, TensorRanksThatCannotRecordTogetherAreToldWhy) {
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

TEST_F(StepGraphsTest, ChangeNoBitOfSeveralPassesAMicroBatch) {
  const Curve plain =
      Train(Config(4, 0), {}, {.folder = kFolder, .pass_tokens = 16});
  const Curve curve =
      Train(Config(4, 8), {}, {.folder = kFolder, .pass_tokens = 16});
  ExpectSame(curve, plain);
  EXPECT_EQ(curve.passes.passes, 17);
  EXPECT_GT(curve.passes.replayed, 0);
}

TEST_F(StepGraphsTest, TheShapeUnusedForLongestMakesRoom) {
  const Curve curve = Train(Config(8, 2), {});
  ExpectSame(curve, Plain());
  EXPECT_EQ(curve.passes.recorded, 2);
  EXPECT_EQ(curve.passes.replayed, 10);
}

}  // namespace
}  // namespace lorica
