#include "tests/launch/golden_training.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "launch/base_model.h"
#include "launch/train/trainer.h"
#include "model/pass_memory.h"
#include "runtime/check.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"
#include "tests/support/tolerance.h"

namespace lorica {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The distance, or that of a and b if it is larger: infinite of what is no
// number.
double Farther(double distance, double a, double b) {
  const double apart = std::abs(a - b);
  return std::isnan(apart) ? kInfinity : std::max(distance, apart);
}

// What is left of a curve's losses and norms once PEFT's are taken off.
Curve OffExact(Curve curve, const GoldenModel& model) {
  const Golden golden(model.folder);
  const Json& exact = golden.settings().at("curves").at(
      model.adapter.substr(std::string("adapter_").size()));
  for (size_t step = 0; step < curve.losses.size(); ++step) {
    curve.losses[step] -= exact.at("loss").at(step).get<double>();
    curve.grad_norms[step] -= exact.at("grad_norm").at(step).get<double>();
  }
  return curve;
}

// Null where none is wanted.
std::unique_ptr<PassMemory> MemoryFor(const GoldenModel& model,
                                      const RunConfig& config, const Gpt& gpt,
                                      const Adapter& adapter,
                                      const Session& session) {
  if (model.planned_tokens == 0) return nullptr;
  const MemoryPlan plan = PlanPassesUpTo(model.planned_tokens, gpt, adapter,
                                         config.recompute, session.device());
  auto memory = PassMemory::Take(plan, session.device(), nullptr);
  CHECK(memory != nullptr);
  return memory;
}

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
  const std::unique_ptr<PassMemory> memory =
      MemoryFor(model, config, *gpt, **adapter, session);
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
      },
      {}, memory != nullptr ? memory->allocator() : nullptr);
  const GptConfig& size = base->source.config();
  Curve curve = {.longest_sum =
                     std::max({size.vocab_size, size.intermediate_size,
                               size.hidden_size})};
  for (const TokenBatch& batch : batches) {
    curve.longest_sum = std::max(curve.longest_sum, std::ssize(batch.tokens));
  }
  const absl::Status status = trainer.Run(
      {.on_step =
           [&](const StepMetrics& metrics) {
             curve.losses.push_back(metrics.loss);
             curve.grad_norms.push_back(metrics.grad_norm);
             curve.peak_device_bytes.push_back(metrics.peak_device_bytes);
             curve.unplanned_bytes.push_back(metrics.unplanned_bytes);
             return absl::OkStatus();
           },
       .on_anomaly = [](const std::string&) { return absl::OkStatus(); }});
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
  if (a.losses.size() != b.losses.size()) return kInfinity;
  double distance = 0.0;
  for (size_t step = 0; step < a.losses.size(); ++step) {
    distance = Farther(distance, a.losses[step], b.losses[step]);
    distance = Farther(distance, a.grad_norms[step], b.grad_norms[step]);
  }
  return distance;
}

Deviation DeviationFromExact(const Curve& curve, const GoldenModel& model) {
  const auto largest = [](const std::vector<double>& off) {
    double distance = off.empty() ? kInfinity : 0.0;
    for (const double each : off) distance = Farther(distance, each, 0.0);
    return distance;
  };
  const Curve off = OffExact(curve, model);
  return {.loss = largest(off.losses), .grad_norm = largest(off.grad_norms)};
}

Deviation F32Bound(const GoldenModel& model, int64_t steps) {
  constexpr double kSigmas = 4.0;
  RunConfig config = GoldenRun({}, DType::kBF16);
  config.train.steps = steps;
  const Curve rounded = TrainGoldenOnCpu(
      config, {.folder = model.folder, .adapter = model.adapter});
  const double factor = kSigmas *
                        std::sqrt(static_cast<double>(rounded.longest_sum)) *
                        UnitRoundoff(DType::kF32) / UnitRoundoff(DType::kBF16);
  const auto bound = [&](const std::vector<double>& off) {
    double squares = 0.0;
    for (const double each : off) squares += each * each;
    return factor * std::sqrt(squares / static_cast<double>(off.size()));
  };
  const Curve off = OffExact(rounded, model);
  return {.loss = bound(off.losses), .grad_norm = bound(off.grad_norms)};
}

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

}  // namespace lorica
