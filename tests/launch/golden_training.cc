#include "tests/launch/golden_training.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "launch/base_model.h"
#include "launch/train/trainer.h"
#include "runtime/check.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

// One rank's share of a run.
Curve TrainRank(const Golden& golden, const GoldenModel& model,
                const RunConfig& config, const Session& session) {
  const auto base = OpenBaseModel(golden.model_path(), session);
  CHECK(base.ok()) << base.status().message();
  const DType dtype = config.model.dtype;
  const std::string directory = golden.adapter_path(model.adapter);
  auto peft = ReadPeftAdapter(directory);
  CHECK(peft.ok()) << peft.status().message();
  peft->lora.dropout = model.dropout;
  const auto adapter = LoadAdapter(*base, *peft, directory, dtype, session);
  CHECK(adapter.ok()) << adapter.status().message();
  const auto gpt = LoadGpt(
      *base, dtype,
      config.mesh.tensor_sequence ? kSequenceParallel : kTensorParallel,
      session,
      model.place == AdapterPlace::kResident ? adapter->get() : nullptr);
  const std::vector<TokenBatch> batches =
      golden.micro_batches("curve_batch.safetensors");
  const auto batch_of = [&](int64_t row) -> const TokenBatch& {
    return batches[static_cast<size_t>(row / kGoldenRows) % batches.size()];
  };
  Trainer trainer(
      config, session, *gpt, adapter->get(),
      [&](int64_t first, int64_t) {
        if (model.before_micro_batch) model.before_micro_batch();
        return batch_of(first);
      },
      [&](int64_t first, int64_t count) {
        int64_t targets = 0;
        for (int64_t row = first; row < first + count; row += kGoldenRows) {
          targets += batch_of(row).num_targets;
        }
        return targets;
      });
  Curve curve;
  const absl::Status status =
      trainer.Run({.on_step = [&](const StepMetrics& metrics) {
        curve.losses.push_back(metrics.loss);
        curve.grad_norms.push_back(metrics.grad_norm);
        curve.peak_device_bytes.push_back(metrics.peak_device_bytes);
        return absl::OkStatus();
      }});
  EXPECT_TRUE(status.ok()) << status.message();
  curve.passes = trainer.recorded_passes();
  for (size_t i = 0; i < curve.tensor_traffic.size(); ++i) {
    curve.tensor_traffic[i] =
        session.mesh().tensor().traffic(static_cast<Purpose>(i));
  }
  return curve;
}

}  // namespace

RunConfig GoldenRun(const MeshConfig& mesh, DType dtype) {
  RunConfig config;
  config.mesh = mesh;
  config.model.dtype = dtype;
  config.train.steps = 10;
  config.train.micro_batch = kGoldenRows;
  config.train.global_batch = 2 * kGoldenRows;
  config.train.learning_rate = 1e-2;
  config.train.schedule = Schedule::kConstant;
  config.train.warmup_steps = 0;
  config.checkpoint.every_steps = 0;
  return config;
}

Curve TrainGolden(const std::function<std::unique_ptr<Device>(int rank)>& open,
                  const RunConfig& config, const GoldenModel& model) {
  const Golden golden(model.folder);
  const int ranks = config.mesh.data * config.mesh.tensor;
  std::vector<Curve> curves(static_cast<size_t>(ranks));
  RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
    std::unique_ptr<Device> device = open(world->rank());
    ASSERT_NE(device, nullptr);
    Backend shorter = device->backend();
    if (model.pass_tokens > 0) {
      shorter.pass_tokens = model.pass_tokens;
      device->Interpose(&shorter);
    }
    const auto session = Session::Over(std::move(device), std::move(world),
                                       Placement{}, config.mesh);
    ASSERT_TRUE(session.ok()) << session.status().message();
    const int rank = (*session)->mesh().world().rank();
    curves[static_cast<size_t>(rank)] =
        TrainRank(golden, model, config, **session);
  });
  for (const Curve& curve : curves) {
    EXPECT_EQ(curve.losses, curves[0].losses);
    EXPECT_EQ(curve.grad_norms, curves[0].grad_norms);
  }
  return curves[0];
}

Curve TrainGoldenOnCpu(const RunConfig& config, const GoldenModel& model) {
  return TrainGolden(
      [](int) { return OpenCpuDevice({.allocation = Allocation::kDirect}); },
      config, model);
}

double Distance(const Curve& a, const Curve& b) {
  if (a.losses.size() != b.losses.size()) {
    return std::numeric_limits<double>::infinity();
  }
  double distance = 0.0;
  for (size_t step = 0; step < a.losses.size(); ++step) {
    distance = std::max({distance, std::abs(a.losses[step] - b.losses[step]),
                         std::abs(a.grad_norms[step] - b.grad_norms[step])});
  }
  return distance;
}

}  // namespace lorica
