// The training loop on ranks as threads, against PEFT and PyTorch's AdamW.
#include "launch/train/trainer.h"

#include <algorithm>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "launch/base_model.h"
#include "tests/launch/golden_training.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

RunConfig ConfigOf(const Golden& golden) {
  const Json& train = golden.settings().at("train");
  RunConfig config;
  config.model.dtype = DType::kF32;
  config.train.steps = train.at("steps").get<int64_t>();
  config.train.micro_batch = kGoldenRows;
  config.train.global_batch =
      kGoldenRows * train.at("micro_batches_per_step").get<int64_t>();
  config.train.learning_rate = train.at("learning_rate").get<double>();
  config.train.max_grad_norm = train.at("max_grad_norm").get<double>();
  config.train.schedule = Schedule::kConstant;
  config.train.warmup_steps = 0;
  config.checkpoint.every_steps = 0;
  return config;
}

struct Case {
  const char* folder;
  const char* adapter;
  MeshConfig mesh;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.folder << "_" << c.adapter << "_data" << c.mesh.data
             << "_tensor" << c.mesh.tensor
             << (c.mesh.tensor_sequence ? "_sequence" : "");
}

class TrainerCurveTest : public testing::TestWithParam<Case> {};

TEST_P(TrainerCurveTest, TwentyStepsFollowPeft) {
  const Case& c = GetParam();
  const Golden golden(c.folder);
  RunConfig config = ConfigOf(golden);
  config.mesh = c.mesh;
  const GoldenModel model = {.folder = c.folder,
                             .adapter = std::string("adapter_") + c.adapter};
  const Curve curve = TrainGoldenOnCpu(config, model);
  ASSERT_EQ(curve.losses.size(), 20u);
  const Deviation of = DeviationFromExact(curve, model);
  const Deviation bound = F32Bound(model, 20);
  EXPECT_LT(of.loss, bound.loss);
  EXPECT_LT(of.grad_norm, bound.grad_norm);
  EXPECT_LT(std::max(of.loss, of.grad_norm), kCurveBound);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* adapter : {"qv", "all"}) {
    for (const char* folder :
         {"heads_5_5_untied", "heads_9_3_tied_sharded", "heads_4_2_rope_llama3",
          "heads_6_2_biased_qwen2", "heads_7_gpt2"}) {
      cases.push_back({folder, adapter, {.data = 1, .tensor = 1}});
      cases.push_back({folder, adapter, {.data = 2, .tensor = 2}});
    }
    const char* folder = "heads_9_3_tied_sharded";
    cases.push_back({folder, adapter, {.tensor = 2}});
    cases.push_back({folder, adapter, {.tensor = 4}});
    cases.push_back({folder, adapter, {.tensor = 2, .tensor_sequence = true}});
    cases.push_back(
        {folder, adapter, {.data = 2, .tensor = 3, .tensor_sequence = true}});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Meshes, TrainerCurveTest, testing::ValuesIn(Cases()),
                         testing::PrintToStringParamName());

TEST(TrainerTest, DataRanksAndAccumulationChangeNoBit) {
  const Golden golden("heads_9_3_tied_sharded");
  RunConfig config = ConfigOf(golden);
  config.train.steps = 5;
  config.train.global_batch = 4 * config.train.micro_batch;
  const Curve one = TrainGoldenOnCpu(config);
  for (const int ranks : {2, 4}) {
    config.mesh.data = ranks;
    const Curve split = TrainGoldenOnCpu(config);
    EXPECT_EQ(split.losses, one.losses) << ranks;
    EXPECT_EQ(split.grad_norms, one.grad_norms) << ranks;
  }
}

TEST(TrainerTest, SeveralPassesAMicroBatchAddUp) {
  RunConfig config = ConfigOf(Golden("heads_9_3_tied_sharded"));
  config.train.steps = 5;
  const Deviation of =
      DeviationFromExact(TrainGoldenOnCpu(config, {.pass_tokens = 16}), {});
  const Deviation bound = F32Bound({}, 20);
  EXPECT_LT(of.loss, bound.loss);
  EXPECT_LT(of.grad_norm, bound.grad_norm);
}

TEST(TrainerTest, ValidationDoesNotDependOnTheMesh) {
  const Golden golden("heads_9_3_tied_sharded");
  std::vector<std::vector<double>> losses;
  for (const int data : {1, 3}) {
    RunRanks(data, [&](std::unique_ptr<Communicator> world) {
      const auto session =
          Session::Over(std::move(world), Placement{}, {.data = data}, {});
      ASSERT_TRUE(session.ok());
      Device* device = (*session)->device();
      Backend shorter = device->backend();
      shorter.pass_tokens = 8;  // So that each rank has some.
      device->Interpose(&shorter);
      const auto base = OpenBaseModel(golden.model_path(), **session);
      ASSERT_TRUE(base.ok());
      const auto gpt = LoadGpt(*base, DType::kF32, kTensorParallel, **session);
      const auto mine =
          TokenLosses(golden.micro_batches("batch.safetensors")[0], *gpt,
                      nullptr, **session);
      if ((*session)->leads()) losses.push_back(mine);
    });
  }
  EXPECT_EQ(losses[0], losses[1]);
}

}  // namespace
}  // namespace lorica
