// The training loop on ranks as threads, against PEFT and PyTorch's AdamW.
#include "launch/train/trainer.h"

#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "launch/base_model.h"
#include "runtime/check.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

constexpr int64_t kRows = 2;  // Of a golden micro-batch.

struct Curve {
  std::vector<double> losses;
  std::vector<double> grad_norms;
};

RunConfig ConfigOf(const Golden& golden) {
  const Json& train = golden.settings().at("train");
  RunConfig config;
  config.train.steps = train.at("steps").get<int64_t>();
  config.train.micro_batch = kRows;
  config.train.global_batch =
      kRows * train.at("micro_batches_per_step").get<int64_t>();
  config.train.learning_rate = train.at("learning_rate").get<double>();
  config.train.max_grad_norm = train.at("max_grad_norm").get<double>();
  config.train.schedule = Schedule::kConstant;
  config.train.warmup_steps = 0;
  config.checkpoint.every_steps = 0;
  return config;
}

// One rank's share of a run over the golden micro-batches.
Curve TrainRank(const Golden& golden, const std::string& adapter_name,
                const RunConfig& config, const Session& session) {
  const auto base = OpenBaseModel(golden.model_path(), session);
  CHECK(base.ok()) << base.status().message();
  const auto gpt =
      LoadGpt(*base, DType::kF32,
              config.mesh.tensor_sequence ? kSequenceParallel : kTensorParallel,
              session);
  const std::string directory = golden.adapter_path(adapter_name);
  const auto peft = ReadPeftAdapter(directory);
  CHECK(peft.ok()) << peft.status().message();
  const auto adapter =
      LoadAdapter(*base, *peft, directory, DType::kF32, session);
  CHECK(adapter.ok()) << adapter.status().message();
  const std::vector<TokenBatch> batches =
      golden.micro_batches("curve_batch.safetensors");
  const auto batch_of = [&](int64_t row) -> const TokenBatch& {
    return batches[static_cast<size_t>(row / kRows) % batches.size()];
  };
  Trainer trainer(
      config, session, *gpt, adapter->get(),
      [&](int64_t first, int64_t) { return batch_of(first); },
      [&](int64_t first, int64_t count) {
        int64_t targets = 0;
        for (int64_t row = first; row < first + count; row += kRows) {
          targets += batch_of(row).num_targets;
        }
        return targets;
      });
  Curve curve;
  const absl::Status status =
      trainer.Run({.on_step = [&](const StepMetrics& metrics) {
        curve.losses.push_back(metrics.loss);
        curve.grad_norms.push_back(metrics.grad_norm);
        return absl::OkStatus();
      }});
  EXPECT_TRUE(status.ok()) << status.message();
  return curve;
}

// Trains on data x tensor threads; every rank must see the same curve.
Curve TrainOn(const Golden& golden, const std::string& adapter,
              const RunConfig& config) {
  std::mutex mutex;
  std::vector<Curve> curves;
  RunRanks(config.mesh.data * config.mesh.tensor,
           [&](std::unique_ptr<Communicator> world) {
             const auto session =
                 Session::Over(std::move(world), Placement{}, config.mesh,
                               {.allocation = Allocation::kDirect});
             ASSERT_TRUE(session.ok()) << session.status().message();
             Curve curve = TrainRank(golden, adapter, config, **session);
             const std::lock_guard<std::mutex> lock(mutex);
             curves.push_back(std::move(curve));
           });
  for (const Curve& curve : curves) {
    EXPECT_EQ(curve.losses, curves[0].losses);
    EXPECT_EQ(curve.grad_norms, curves[0].grad_norms);
  }
  return curves[0];
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

// The bound that users are promised; F32 rounding stays a hundred times below.
constexpr double kCurveBound = 1e-4;

TEST_P(TrainerCurveTest, TwentyStepsFollowPeft) {
  const Case& c = GetParam();
  const Golden golden(c.folder);
  RunConfig config = ConfigOf(golden);
  config.mesh = c.mesh;
  const Curve curve =
      TrainOn(golden, std::string("adapter_") + c.adapter, config);
  const Json& expected = golden.settings().at("curves").at(c.adapter);
  ASSERT_EQ(curve.losses.size(), 20u);
  for (size_t step = 0; step < curve.losses.size(); ++step) {
    EXPECT_NEAR(curve.losses[step], expected.at("loss")[step].get<double>(),
                kCurveBound)
        << step;
    EXPECT_NEAR(curve.grad_norms[step],
                expected.at("grad_norm")[step].get<double>(), kCurveBound)
        << step;
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* adapter : {"qv", "all"}) {
    for (const char* folder : {"heads_5_5_untied", "heads_9_3_tied_sharded",
                               "heads_4_2_rope_llama3"}) {
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
  const Curve one = TrainOn(golden, "adapter_all", config);
  for (const int ranks : {2, 4}) {
    config.mesh.data = ranks;
    const Curve split = TrainOn(golden, "adapter_all", config);
    EXPECT_EQ(split.losses, one.losses) << ranks;
    EXPECT_EQ(split.grad_norms, one.grad_norms) << ranks;
  }
}

TEST(TrainerTest, ValidationDoesNotDependOnTheMesh) {
  const Golden golden("heads_9_3_tied_sharded");
  std::vector<std::vector<double>> losses;
  for (const int data : {1, 3}) {
    RunRanks(data, [&](std::unique_ptr<Communicator> world) {
      const auto session =
          Session::Over(std::move(world), Placement{}, {.data = data}, {});
      ASSERT_TRUE(session.ok());
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
