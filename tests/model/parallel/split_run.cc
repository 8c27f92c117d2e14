#include "tests/model/parallel/split_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/config/run_config.h"
#include "model/pass.h"
#include "runtime/check.h"
#include "runtime/ops.h"
#include "runtime/random.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

constexpr uint64_t kSeed = 3;
constexpr uint64_t kPerturbationSalt = 2;

// Value `index` of a named array: uniform in [-1, 1).
float UniformOf(const std::string& name, uint64_t salt, int64_t index) {
  const RandomField field = {kSeed, StreamOf(name.c_str(), salt)};
  return 2.0f * field.Uniform(static_cast<uint64_t>(index)) - 1.0f;
}

// This rank's slice of a frozen parameter: norms around one, matrices of
// variance 1 / inputs.
Tensor LoadFrozen(const SplitOptions& options, Device* device,
                  const ParamSpec& spec, const Slice& slice) {
  const bool norm = spec.shape.rank() == 1;
  const bool embedding = spec.name == EmbeddingName(UnevenModel());
  const int64_t cols = spec.shape[norm ? 0 : 1];
  const float bound = std::sqrt(3.0f / static_cast<float>(cols));
  std::vector<float> values;
  for (int64_t r = slice.rows.begin; r < slice.rows.end; ++r) {
    for (int64_t c = slice.cols.begin; c < slice.cols.end; ++c) {
      const int64_t index = r * cols + c;
      const float value = UniformOf(spec.name, 0, index);
      values.push_back(norm ? 1.0f + 0.1f * value
                            : value * (embedding ? 1.0f : bound));
      if (embedding && options.perturbation > 0.0) {
        values.back() *= static_cast<float>(
            1.0 + options.perturbation *
                      UniformOf(spec.name, kPerturbationSalt, index));
      }
    }
  }
  const Shape shape = norm ? Shape{slice.cols.size()}
                           : Shape{slice.rows.size(), slice.cols.size()};
  const Tensor tensor = Tensor::FromHost<float>(device, shape, values);
  return norm ? tensor : ops::Convert(tensor, options.dtype);
}

RunConfig ConfigOf(const SplitOptions& options) {
  RunConfig config;
  config.mesh = options.mesh;
  config.train.steps = options.steps;
  config.train.global_batch = options.micro_batches;
  config.train.micro_batch = 1;
  config.train.learning_rate = 1e-3;
  config.train.warmup_steps = 0;
  config.train.schedule = Schedule::kConstant;
  config.train.max_grad_norm = 0.0;
  config.train.seed = kSeed;
  config.checkpoint.every_steps = 0;
  return config;
}

// A factor from the slices that the tensor ranks hold of a flat array.
std::vector<float> GatherFactor(const Factor& factor, const Tensor& flat,
                                Communicator& group) {
  const std::vector<float> mine =
      flat.Cols({factor.offset, factor.offset + factor.elements})
          .ToHost<float>();
  const std::vector<std::string> slices = group.AllGatherBytes(
      std::string(reinterpret_cast<const char*>(mine.data()),
                  mine.size() * sizeof(float)),
      Purpose::kCheckpoint);
  std::vector<float> whole(static_cast<size_t>(factor.shape.elements()));
  for (int rank = 0; rank < group.size(); ++rank) {
    const Slice slice = SliceOf(factor.shard, factor.shape, rank);
    const char* from = slices[static_cast<size_t>(rank)].data();
    for (int64_t r = slice.rows.begin; r < slice.rows.end; ++r) {
      for (int64_t c = slice.cols.begin; c < slice.cols.end; ++c) {
        std::memcpy(&whole[static_cast<size_t>(r * factor.shape[1] + c)], from,
                    sizeof(float));
        from += sizeof(float);
      }
    }
  }
  return whole;
}

std::map<std::string, std::vector<float>> GatherFactors(const Adapter& adapter,
                                                        const Tensor& flat,
                                                        const char* prefix,
                                                        const Mesh& mesh) {
  std::map<std::string, std::vector<float>> factors;
  for (const Factor& factor : adapter.factors()) {
    const char* kind = factor.kind == Factor::Kind::kA ? "A " : "B ";
    factors[absl::StrCat(prefix, kind, factor.module)] =
        GatherFactor(factor, flat, mesh.tensor());
  }
  return factors;
}

// The ranks' values one after another.
std::vector<float> Concatenate(const std::vector<float>& mine,
                               Communicator& group) {
  std::vector<float> all;
  for (const std::string& bytes : group.AllGatherBytes(
           std::string(reinterpret_cast<const char*>(mine.data()),
                       mine.size() * sizeof(float)),
           Purpose::kControl)) {
    const size_t first = all.size();
    all.resize(first + bytes.size() / sizeof(float));
    std::memcpy(all.data() + first, bytes.data(), bytes.size());
  }
  return all;
}

// The first step's losses, dX and gradients.
std::map<std::string, std::vector<float>> FirstStep(const SplitOptions& options,
                                                    const Session& session,
                                                    SplitModelRun* run) {
  const Mesh& mesh = session.mesh();
  Adapter& adapter = *run->adapter;
  std::vector<FlatSlice> slices;
  for (const Factor& factor : adapter.factors()) {
    slices.push_back(
        {factor.shard, {factor.offset, factor.offset + factor.elements}});
  }
  const int64_t mine = options.micro_batches / mesh.data().size();
  GradSync sync(slices, *adapter.grads(), mine, mesh);
  std::vector<float> losses;
  std::vector<float> dx_rows;
  for (int64_t i = 0; i < mine; ++i) {
    const TokenBatch row = RowOf(mesh.data().rank() * mine + i);
    const auto end = static_cast<int64_t>(row.segments.size());
    const Pass pass = MakeTrainingPass(session.device(), row, {0, end},
                                       run->gpt->selection(), kSeed);
    Tensor dx;
    const std::vector<int32_t> targets = pass.targets.ToHost<int32_t>();
    const std::vector<double> row_losses = run->gpt->TrainToEmbedding(
        pass, Recompute::kCheap, 1.0f / 32.0f, &adapter, &dx);
    for (size_t j = 0; j < targets.size(); ++j) {
      if (targets[j] >= 0) losses.push_back(static_cast<float>(row_losses[j]));
    }
    std::vector<float> rows = dx.ToFloats();
    if (options.mesh.tensor_sequence) rows = Concatenate(rows, mesh.tensor());
    dx_rows.insert(dx_rows.end(), rows.begin(), rows.end());
    sync.AddMicroBatch();
  }
  sync.Reduce();
  auto gradients = GatherFactors(adapter, *adapter.grads(), "d", mesh);
  gradients["loss"] = Concatenate(losses, mesh.data());
  gradients["dX"] = Concatenate(dx_rows, mesh.data());
  adapter.ZeroGrad();
  return gradients;
}

std::vector<double> Doubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

template <typename T>
double RelativeError(const std::vector<T>& a, const std::vector<T>& b) {
  EXPECT_EQ(a.size(), b.size());
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  EXPECT_GT(norm, 0.0);
  return std::sqrt(error / norm);
}

// The largest over the arrays whose names begin with `prefix`.
template <typename T>
double LargestError(const std::map<std::string, std::vector<T>>& a,
                    const std::map<std::string, std::vector<T>>& b,
                    const char* prefix) {
  double largest = 0.0;
  for (const auto& [name, values] : b) {
    if (name.rfind(prefix, 0) != 0) continue;
    largest = std::max(largest, RelativeError(a.at(name), values));
  }
  return largest;
}

}  // namespace

std::string NameOf(const MeshConfig& mesh) {
  return absl::StrCat("data ", mesh.data, " tensor ", mesh.tensor,
                      mesh.tensor_sequence ? " sequence" : "");
}

GptConfig UnevenModel() {
  GptConfig config = {.vocab_size = 50,
                      .hidden_size = 32,
                      .num_layers = 2,
                      .num_heads = 9,
                      .num_kv_heads = 3,
                      .head_dim = 4,
                      .intermediate_size = 40,
                      .max_positions = 16};
  config.rope.inv_freq = {1.0f, 0.1f};
  CHECK(config.Validate().ok());
  return config;
}

TokenBatch RowOf(int64_t number) {
  TokenBatch batch;
  const RandomField field = {kSeed, StreamOf("tokens")};
  const auto token = [&](int64_t i) {
    const uint32_t word = field.Word(static_cast<uint64_t>(number * 64 + i));
    return static_cast<int32_t>(word % UnevenModel().vocab_size);
  };
  for (const int64_t length : {5 + number % 3, int64_t{9}, 4 + number % 5}) {
    const auto first = static_cast<int64_t>(batch.tokens.size());
    batch.segments.push_back({first, length, first, length});
    for (int64_t i = 0; i < length; ++i) {
      const bool predicts = i > 0 && i + 1 < length;
      batch.tokens.push_back(token(first + i));
      batch.positions.push_back(static_cast<int32_t>(i));
      batch.targets.push_back(predicts ? token(first + i + 1) : -1);
      batch.row_index.push_back(number * 64 + first + i);
      batch.num_targets += predicts ? 1 : 0;
    }
  }
  return batch;
}

SplitModelRun::SplitModelRun(const SplitOptions& options,
                             const Session& session) {
  const GptConfig config = UnevenModel();
  Communicator& group = session.mesh().tensor();
  const auto split = SplitModel(config, group.size());
  CHECK(split.ok()) << split.status();
  gpt = std::make_unique<Gpt>(
      config, *split,
      options.mesh.tensor_sequence ? kSequenceParallel : kTensorParallel,
      &group, [&](const ParamSpec& spec, const Slice& slice) {
        return LoadFrozen(options, session.device(), spec, slice);
      });
  const auto modules =
      ResolveTargets(config, *split, {.rank = 3, .targets = options.targets});
  CHECK(modules.ok()) << modules.status();
  adapter = std::make_unique<Adapter>(session.device(), options.dtype,
                                      config.num_layers, *modules,
                                      options.dropout, group.rank());
  adapter->Initialize(kSeed);
  for (const Factor& factor : adapter->factors()) {
    if (factor.kind != Factor::Kind::kB) continue;
    std::vector<float> values;
    for (int64_t r = factor.slice.rows.begin; r < factor.slice.rows.end; ++r) {
      for (int64_t c = 0; c < factor.shape[1]; ++c) {
        values.push_back(0.1f *
                         UniformOf(factor.module, 0, r * factor.shape[1] + c));
      }
    }
    adapter->SetValue(factor, values);
  }
  adapter->Refresh();
}

SplitResult RunSplit(const SplitOptions& options, const Session& session) {
  SplitModelRun run(options, session);
  SplitResult result;
  result.start =
      GatherFactors(*run.adapter, *run.adapter->values(), "", session.mesh());
  result.gradients = FirstStep(options, session, &run);
  const RunConfig config = ConfigOf(options);
  Trainer trainer(
      config, session, *run.gpt, run.adapter.get(),
      [&](int64_t first, int64_t count) {
        CHECK_EQ(count, 1);
        result.rows.emplace_back(first, count);
        return RowOf(first);
      },
      [](int64_t first, int64_t count) {
        int64_t targets = 0;
        for (int64_t row = first; row < first + count; ++row) {
          targets += RowOf(row).num_targets;
        }
        return targets;
      });
  const auto nothing = [](const auto&) { return absl::OkStatus(); };
  const absl::Status status =
      trainer.Run({.on_step =
                       [&](const StepMetrics& metrics) {
                         result.training["losses"].push_back(metrics.loss);
                         result.training["norms"].push_back(metrics.grad_norm);
                         return absl::OkStatus();
                       },
                   .on_save = nothing,
                   .on_validate = nothing});
  EXPECT_TRUE(status.ok()) << status;
  for (const auto& [name, values] : GatherFactors(
           *run.adapter, *run.adapter->values(), "", session.mesh())) {
    result.training[name] = Doubles(values);
  }
  return result;
}

SplitResult RunOnThreads(const SplitOptions& options) {
  const MeshConfig& mesh = options.mesh;
  const int ranks = mesh.data * mesh.tensor;
  std::vector<SplitResult> results(static_cast<size_t>(ranks));
  RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
    const int rank = world->rank();
    const auto session = Session::Over(std::move(world), Placement{}, mesh,
                                       {.allocation = Allocation::kDirect});
    ASSERT_TRUE(session.ok()) << session.status();
    results[static_cast<size_t>(rank)] = RunSplit(options, **session);
  });
  SplitResult& first = results.front();
  for (int rank = 1; rank < ranks; ++rank) {
    const SplitResult& other = results[static_cast<size_t>(rank)];
    EXPECT_EQ(other.gradients, first.gradients) << NameOf(mesh) << " " << rank;
    EXPECT_EQ(other.training, first.training) << NameOf(mesh) << " " << rank;
    EXPECT_EQ(other.start, first.start) << NameOf(mesh) << " " << rank;
    if (rank % mesh.tensor != 0) {
      EXPECT_EQ(
          other.rows,
          results[static_cast<size_t>(rank / mesh.tensor * mesh.tensor)].rows);
    } else {
      first.rows.insert(first.rows.end(), other.rows.begin(), other.rows.end());
    }
  }
  return std::move(first);
}

double RoundingOf(DType dtype) {
  const GptConfig config = UnevenModel();
  const auto length = static_cast<double>(
      std::max({config.intermediate_size, config.hidden_size,
                config.num_heads * config.head_dim, config.vocab_size}));
  const auto layers = static_cast<double>(config.num_layers);
  const double sums = 4.0 * layers + 2.0;
  const double in_f32 = sums * 2.0 * length * 0x1p-24;
  if (dtype == DType::kF32) return in_f32;
  const double stored = 28.0 * layers + 8.0;
  return in_f32 + std::sqrt(2.0 * stored) * 0x1p-8;
}

Deviation DeviationOf(const SplitResult& a, const SplitResult& b) {
  return {.loss = LargestError(a.gradients, b.gradients, "loss"),
          .dx = LargestError(a.gradients, b.gradients, "dX"),
          .da = LargestError(a.gradients, b.gradients, "dA "),
          .db = LargestError(a.gradients, b.gradients, "dB "),
          .losses = LargestError(a.training, b.training, "losses"),
          .adapter = std::max(LargestError(a.training, b.training, "A "),
                              LargestError(a.training, b.training, "B "))};
}

Deviation BoundOf(const SplitResult& one, const SplitResult& perturbed,
                  DType dtype) {
  Deviation bound = DeviationOf(perturbed, one);
  for (double* entry : {&bound.loss, &bound.dx, &bound.da, &bound.db,
                        &bound.losses, &bound.adapter}) {
    *entry += RoundingOf(dtype);
  }
  return bound;
}

void ExpectWithin(const Deviation& observed, const Deviation& bound) {
  EXPECT_LE(observed.loss, bound.loss);
  EXPECT_LE(observed.dx, bound.dx);
  EXPECT_LE(observed.da, bound.da);
  EXPECT_LE(observed.db, bound.db);
  EXPECT_LE(observed.losses, bound.losses);
  EXPECT_LE(observed.adapter, bound.adapter);
}

std::string DeviationHeader() {
  return absl::StrFormat("%-26s %9s %9s %9s %9s %9s %9s", "", "loss", "dX",
                         "dA", "dB", "10 losses", "adapter");
}

std::string DeviationLine(const std::string& name, const Deviation& d) {
  return absl::StrFormat("%-26s %9.1e %9.1e %9.1e %9.1e %9.1e %9.1e", name,
                         d.loss, d.dx, d.da, d.db, d.losses, d.adapter);
}

}  // namespace lorica
