// Runs that stop and go on, on the same mesh and on others.
#include "launch/state/resume.h"

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launch/base_model.h"
#include "launch/state/saver.h"
#include "launch/train/trainer.h"
#include "tests/launch/state/tiny_adapter.h"
#include "tests/support/golden.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kRows = 2;  // Of a golden micro-batch.
constexpr int64_t kStop = 2;  // The step whose save is resumed.
constexpr int64_t kMore = 10;

// The bound that users are promised of one mesh against another.
constexpr double kCurveBound = 1e-4;

struct Legs {
  RunConfig config;
  std::string resume;          // The save to go on from; empty: none.
  std::string directory;       // Where to save; empty: nowhere.
  std::set<int64_t> saved_at;  // Which of the steps at which a save is due.
  std::vector<double> losses;  // By step from the first one trained.
};

// One rank's share of a run over golden micro-batches.
void TrainRank(const Golden& golden, const Session& session, Legs* legs,
               std::mutex* mutex) {
  const RunConfig& config = legs->config;
  const auto base = OpenBaseModel(golden.model_path(), session);
  ASSERT_TRUE(base.ok()) << base.status();
  const auto gpt =
      LoadGpt(*base, DType::kF32,
              config.mesh.tensor_sequence ? kSequenceParallel : kTensorParallel,
              session);
  const std::string directory = golden.adapter_path("adapter_all");
  auto peft = ReadPeftAdapter(directory);
  ASSERT_TRUE(peft.ok()) << peft.status();
  peft->lora.dropout = 0.1f;
  const auto adapter =
      LoadAdapter(*base, *peft, directory, DType::kF32, session);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  const Mesh& mesh = session.mesh();
  TrainingPosition position;
  if (!legs->resume.empty()) {
    const auto resumed =
        Resume({.resume = legs->resume}, {}, config.train.steps, adapter->get(),
               mesh.world());
    ASSERT_TRUE(resumed.ok()) << resumed.status();
    position = (*resumed)->manifest.position;
  }
  std::unique_ptr<Saver> saver;
  if (!legs->directory.empty() && mesh.data().rank() == 0) {
    auto opened = Saver::Open({.directory = legs->directory, .keep = 0}, 0,
                              &mesh.tensor());
    ASSERT_TRUE(opened.ok()) << opened.status();
    saver = *std::move(opened);
  }
  const auto save = [&](const TrainingPosition& at) {
    if (saver == nullptr || legs->saved_at.count(at.step) == 0) {
      return absl::OkStatus();
    }
    saver->Start(
        {.manifest = {.position = at,
                      .mesh = config.mesh,
                      .tensors = StateTensorsOf(**adapter)},
         .snapshot = TakeSnapshot(adapter->get(), mesh.tensor().rank()),
         .peft = std::nullopt},
        std::chrono::steady_clock::now());
    return saver->Finish()->status;
  };
  // What was loaded, saved again at once.
  if (position.step > 0) {
    ASSERT_TRUE(save(position).ok());
  }
  const std::vector<TokenBatch> batches =
      golden.micro_batches("curve_batch.safetensors");
  const auto batch_of = [&](int64_t row) {
    // Rows of their own throughout, so that dropout differs between steps.
    TokenBatch batch =
        batches[static_cast<size_t>(row / kRows) % batches.size()];
    for (int64_t& index : batch.row_index) index += row * 1000;
    return batch;
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
      },
      position);
  const absl::Status status =
      trainer.Run({.on_step =
                       [&](const StepMetrics& metrics) {
                         const std::lock_guard<std::mutex> lock(*mutex);
                         if (session.leads()) {
                           legs->losses.push_back(metrics.loss);
                         }
                         return absl::OkStatus();
                       },
                   .on_save = save});
  EXPECT_TRUE(status.ok()) << status;
}

void Train(Legs* legs) {
  const Golden golden("heads_9_3_tied_sharded");
  std::mutex mutex;
  const MeshConfig& mesh = legs->config.mesh;
  RunRanks(mesh.data * mesh.tensor, [&](std::unique_ptr<Communicator> world) {
    const auto session = Session::Over(std::move(world), Placement{}, mesh,
                                       {.allocation = Allocation::kDirect});
    ASSERT_TRUE(session.ok()) << session.status();
    TrainRank(golden, **session, legs, &mutex);
  });
}

RunConfig ConfigOn(const MeshConfig& mesh) {
  RunConfig config;
  config.mesh = mesh;
  config.train.steps = kStop + kMore;
  config.train.micro_batch = kRows;
  config.train.global_batch = 2 * kRows;
  config.train.learning_rate = 1e-2;
  config.train.warmup_steps = 4;
  config.train.weight_decay = 0.1;
  config.checkpoint.every_steps = kStop;
  return config;
}

struct NamedMesh {
  const char* name;
  MeshConfig mesh;
};
std::ostream& operator<<(std::ostream& out, const NamedMesh& named) {
  return out << named.name;
}
const NamedMesh kMeshes[] = {
    {"one", {}},
    {"tensor2", {.tensor = 2}},
    {"data2", {.data = 2}},
    {"data2tensor2", {.data = 2, .tensor = 2}},
    {"tensor4", {.tensor = 4}},
    {"sequence2", {.tensor = 2, .tensor_sequence = true}},
};

class ResumeMatrixTest : public testing::TestWithParam<NamedMesh> {};

TEST_P(ResumeMatrixTest, GoesOnFromWhateverMeshSaved) {
  const TempDirectory directory;
  const MeshConfig& saved_on = GetParam().mesh;
  Legs whole = {.config = ConfigOn(saved_on),
                .directory = directory / "whole",
                .saved_at = {kStop, kStop + kMore}};
  Train(&whole);
  ASSERT_EQ(std::ssize(whole.losses), kStop + kMore);
  const std::vector<double> expected(whole.losses.begin() + kStop,
                                     whole.losses.end());
  const std::string stopped = whole.directory + "/" + StepName(kStop);
  const std::string end = "/" + StepName(kStop + kMore);
  const auto saved_bits = BitsOf({stopped});
  const auto end_bits = BitsOf({whole.directory + end});
  ASSERT_TRUE(saved_bits.ok() && end_bits.ok());
  for (const NamedMesh& other : kMeshes) {
    SCOPED_TRACE(testing::Message() << "resumed on " << other.name);
    Legs rest = {.config = ConfigOn(other.mesh),
                 .resume = stopped,
                 .directory = directory / other.name,
                 .saved_at = {kStop, kStop + kMore}};
    Train(&rest);
    EXPECT_EQ(*BitsOf({rest.directory + "/" + StepName(kStop)}), *saved_bits);
    ASSERT_EQ(rest.losses.size(), expected.size());
    MeshConfig data_as_saved = other.mesh;
    data_as_saved.data = saved_on.data;
    if (data_as_saved == saved_on) {
      EXPECT_EQ(rest.losses, expected);
      EXPECT_EQ(*BitsOf({rest.directory + end}), *end_bits);
    } else {
      EXPECT_THAT(rest.losses, testing::Pointwise(
                                   testing::DoubleNear(kCurveBound), expected));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Meshes, ResumeMatrixTest, testing::ValuesIn(kMeshes),
                         testing::PrintToStringParamName());

// Which save a run goes on from.
class ChooseSaveTest : public testing::Test {
 protected:
  ChooseSaveTest() : device_(OpenTestDevice()), world_(LoneCommunicator()) {
    adapter_ = TinyAdapter(device_.get(), 0, 1);
    for (const int step : {4, 8}) {
      const std::string save = run() + "/" + StepName(step);
      WriteTinySave(save, 2, step);
      Edit(save, [&](Manifest* m) { m->position.step = step; });
    }
    WriteBytes(run() + "/latest", "step_00000008\n");
  }

  std::string run() const { return directory_ / "run"; }
  static void Edit(const std::string& save,
                   const std::function<void(Manifest*)>& edit) {
    const std::string path = ManifestPath(save);
    auto manifest = ParseManifest(ReadBytes(path), path);
    CHECK(manifest.ok());
    edit(&*manifest);
    WriteBytes(path, ToText(*manifest));
  }
  static RunIdentity Same() {
    return {.config = {{"train.seed", "1"}, {"data.train", "t.jsonl"}},
            .data_checksum = "d"};
  }
  auto ResumeFrom(const std::string& resume,
                  const RunIdentity& identity = Same(), int64_t steps = 10,
                  const std::vector<std::string>& allowed = {}) {
    return Resume(
        {.directory = run(), .resume = resume, .allow_change = allowed},
        identity, steps, adapter_.get(), *world_);
  }

  const TempDirectory directory_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Adapter> adapter_;
};

TEST_F(ChooseSaveTest, AutoTakesTheNewest) {
  const auto resumed = ResumeFrom("AUTO");
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ((*resumed)->save, run() + "/step_00000008");
  EXPECT_EQ((*resumed)->manifest.position.step, 8);
  const auto expected = TinyAdapter(device_.get(), 0, 1);
  Fill(8, expected.get());
  EXPECT_EQ(adapter_->values()->ToHost<float>(),
            expected->values()->ToHost<float>());
}

TEST_F(ChooseSaveTest, AutoPassesOverWhatIsDamaged) {
  const std::string shard =
      run() + "/step_00000008/state/shard-1-of-2.safetensors";
  std::string bytes = ReadBytes(shard);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  WriteBytes(shard, bytes);
  const auto resumed = ResumeFrom("AUTO");
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ((*resumed)->save, run() + "/step_00000004");
  EXPECT_THAT((*resumed)->passed_over, ElementsAre(HasSubstr(shard)));
  const auto given = ResumeFrom(run() + "/step_00000008");
  EXPECT_THAT(given.status().message(),
              HasSubstr("checkpoint.resume: " + shard));
}

TEST_F(ChooseSaveTest, AutoDoesNotStartAnewOverSavesThatAreAllDamaged) {
  for (const char* step : {"/step_00000004", "/step_00000008"}) {
    WriteBytes(ManifestPath(run() + step), "{}");
  }
  EXPECT_THAT(ResumeFrom("AUTO").status().message(),
              HasSubstr("checkpoint.resume=NEVER"));
}

TEST_F(ChooseSaveTest, NeverAndADirectoryWithoutSavesStartAnew) {
  EXPECT_FALSE(ResumeFrom("NEVER")->has_value());
  std::filesystem::remove_all(run());
  EXPECT_FALSE(ResumeFrom("AUTO")->has_value());
}

TEST_F(ChooseSaveTest, APathIsASaveOrARun) {
  EXPECT_EQ((*ResumeFrom(run() + "/step_00000004"))->manifest.position.step, 4);
  EXPECT_EQ((*ResumeFrom(run()))->manifest.position.step, 8);
  EXPECT_EQ(ResumeFrom(directory_ / "none").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ChooseSaveTest, AChangeOfMeaningIsRefusedByField) {
  RunIdentity other = Same();
  other.config["train.seed"] = "2";
  EXPECT_THAT(
      std::string(ResumeFrom("AUTO", other).status().message()),
      HasSubstr("train.seed is 2, and was 1 when " + run() +
                "/step_00000008 was saved; set it back, start anew with "
                "checkpoint.resume=NEVER, or allow the change with "
                "checkpoint.allow_change=train.seed"));
  EXPECT_TRUE(ResumeFrom("AUTO", other, 10, {"train.seed"}).ok());
  RunIdentity given = Same();
  given.config["adapter.init_from"] = "dir";
  EXPECT_THAT(ResumeFrom("AUTO", given).status().message(),
              HasSubstr("adapter.init_from is dir, and was not given when"));
}

TEST_F(ChooseSaveTest, RecordsMayMoveAndNotChange) {
  RunIdentity moved = Same();
  moved.config["data.train"] = "elsewhere.jsonl";
  EXPECT_TRUE(ResumeFrom("AUTO", moved).ok());
  moved.data_checksum = "e";
  EXPECT_THAT(
      ResumeFrom("AUTO", moved).status().message(),
      HasSubstr("data.train is elsewhere.jsonl with other records, and was "
                "t.jsonl when"));
  EXPECT_TRUE(ResumeFrom("AUTO", moved, 10, {"data.train"}).ok());
}

TEST_F(ChooseSaveTest, WhatDoesNotAlterMeaningMayChange) {
  RunIdentity other = Same();
  for (const char* field :
       {"train.steps", "train.micro_batch", "mesh.data", "mesh.tensor",
        "checkpoint.keep", "report.metrics", "threads", "device", "recompute",
        "data.valid", "train.valid_every_steps", "train.on_anomaly"}) {
    other.config[field] = "changed";
  }
  EXPECT_TRUE(ResumeFrom("AUTO", other).ok());
}

TEST_F(ChooseSaveTest, FewerStepsThanAreDoneAreRefused) {
  EXPECT_TRUE(ResumeFrom("AUTO", Same(), 8).ok());
  EXPECT_THAT(ResumeFrom("AUTO", Same(), 7).status().message(),
              HasSubstr("train.steps is 7 and " + run() +
                        "/step_00000008 was saved after step 8"));
}

TEST_F(ChooseSaveTest, ADamageThatOneRankSeesIsSeenByAll) {
  // Only tensor rank 1 of 2 needs this shard.
  std::filesystem::remove(run() +
                          "/step_00000008/state/shard-1-of-2.safetensors");
  RunRanks(2, [&](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const auto adapter = TinyAdapter(device.get(), world->rank(), 2);
    const auto resumed =
        Resume({.directory = run()}, Same(), 10, adapter.get(), *world);
    ASSERT_TRUE(resumed.ok()) << resumed.status();
    EXPECT_EQ((*resumed)->save, run() + "/step_00000004");
    EXPECT_THAT((*resumed)->passed_over,
                ElementsAre(HasSubstr("rank 1: state/shard-1-of-2")));
  });
}

}  // namespace
}  // namespace lorica
