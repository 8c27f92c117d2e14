// Runs with memory planned for their passes, on the stand-ins for CUDA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launch/config/config.h"
#include "launch/train/pass_planning.h"
#include "launch/train/train_run.h"
#include "tests/launch/golden_training.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::Each;
using testing::Gt;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(PlannedRunTest, TheLargestPassIsOfAMicroBatchOrWhatTheDeviceTakes) {
  RunConfig config;
  config.train.micro_batch = 4;
  config.data.sequence_length = 100;
  Dataset data;
  data.records.push_back({.tokens = std::vector<int32_t>(60)});
  EXPECT_EQ(MostPassTokens(config, data, 8192), 400);
  EXPECT_EQ(MostPassTokens(config, data, 150), 150);
  EXPECT_EQ(MostPassTokens(config, data, 50), 60);  // No record is cut.
  config.data.pack = false;
  EXPECT_EQ(MostPassTokens(config, data, 8192), 240);
}

// Golden steps of a micro-batch each, activations in memory planned for passes
// of so many tokens.
Curve TrainPlanned(int64_t steps, int graphs, int64_t planned_tokens,
                   const std::function<void()>& before_step = nullptr) {
  RunConfig config = GoldenRun({}, DType::kF32);
  config.train.steps = steps;
  config.train.global_batch = kGoldenRows;
  config.pass_graphs = graphs;
  const auto open = [](int rank) {
    return *OpenCudaDevice({.index = rank, .allocation = Allocation::kPool});
  };
  cuda_fakes::Reset({.policy = Policy::kLazyLast});
  Curve curve = TrainGolden(open, config,
                            {.folder = "heads_5_5_untied",
                             .planned_tokens = planned_tokens,
                             .before_micro_batch = before_step});
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
  return curve;
}

// The ninth step's micro-batch is the first's; before, scratch memory grows
// with the shapes, and recordings are made. The largest has 34 tokens.
TEST(PlannedRunTest, TenStepsAskForNothingOnceAllShapesWereThere) {
  for (const int graphs : {0, 8}) {
    std::vector<int64_t> asked;
    const Curve curve = TrainPlanned(
        10, graphs, 34, [&] { asked.push_back(cuda_fakes::Allocations()); });
    EXPECT_THAT(curve.unplanned_bytes, Each(0));
    ASSERT_THAT(asked, SizeIs(10));
    EXPECT_EQ(asked[9], asked[8]) << graphs;
  }
}

TEST(PlannedRunTest, APassThatDoesNotFitTakesMoreAndIsCounted) {
  const Curve plain = TrainPlanned(2, 0, 0);
  EXPECT_THAT(plain.unplanned_bytes, Each(0));
  for (const int graphs : {0, 8}) {
    const Curve curve = TrainPlanned(2, graphs, 16);
    EXPECT_EQ(curve.losses, plain.losses);
    EXPECT_EQ(curve.grad_norms, plain.grad_norms);
    EXPECT_THAT(curve.unplanned_bytes.back(), Gt(0));
  }
}

// What RunTraining returns before its first step ends the program with 2.
TEST(PlannedRunTest, ARunThatDoesNotFitEndsBeforeItWrites) {
  const TempDirectory directory;
  const std::string run = directory / "run";
  WriteBytes(directory / "train.jsonl",
             R"({"text": "What is learned once is not learned again."})");
  const auto config = ParseConfig(
      R"(model { path: "tests/golden/tiny_text/model" dtype: F32 }
         data { sequence_length: 256 }
         train { global_batch: 64 micro_batch: 64 }
         mesh { tensor: 2 })",
      "run",
      {"data.train=" + std::string(directory / "train.jsonl"),
       "checkpoint.directory=" + run});
  ASSERT_TRUE(config.ok()) << config.status();
  cuda_fakes::Reset({.memory_bytes = size_t{48} << 20});
  RunRanks(2, [&](std::unique_ptr<Communicator> world) {
    auto device = OpenCudaDevice({.index = world->rank()});
    ASSERT_TRUE(device.ok()) << device.status();
    const auto session = Session::Over(*std::move(device), std::move(world),
                                       Placement{}, config->run.mesh);
    ASSERT_TRUE(session.ok()) << session.status();
    const absl::Status status = RunTraining(*config, **session);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("a pass of 8192 tokens takes"));
  });
  EXPECT_FALSE(std::filesystem::exists(run + "/metrics.jsonl"));
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
}

}  // namespace
}  // namespace lorica
