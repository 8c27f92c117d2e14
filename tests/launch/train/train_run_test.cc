// `lorica train` from a config to adapters on disk.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "launch/state/checkpoint.h"
#include "tests/launch/program.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kModel[] = "tests/golden/tiny_text/model";

class TrainRunTest : public testing::Test {
 protected:
  TrainRunTest() {
    WriteBytes(Path("train.jsonl"), FirstLines("configs/data/train.jsonl", 96));
    WriteBytes(Path("valid.jsonl"), FirstLines("configs/data/valid.jsonl", 12));
    WriteBytes(Path("run.textproto"), R"(
      model { path: "tests/golden/tiny_text/model" dtype: F32 }
      adapter { rank: 4 alpha: 8 target: "all-linear" }
      data { sequence_length: 256 }
      train { steps: 8 global_batch: 4 micro_batch: 1 learning_rate: 1e-2
              warmup_steps: 2 }
      threads: 1
    )");
  }

  std::string Path(const std::string& name) const { return directory_ / name; }

  // Trains into the run directory `run`.
  Outcome Train(const std::string& run,
                const std::vector<std::string>& overrides = {},
                int ranks = 1) const {
    return RunLorica(Arguments(run, overrides), ranks);
  }
  std::vector<std::string> Arguments(
      const std::string& run,
      const std::vector<std::string>& overrides = {}) const {
    std::vector<std::string> arguments = {"train",
                                          "--config",
                                          Path("run.textproto"),
                                          "--set",
                                          "data.train=" + Path("train.jsonl"),
                                          "--set",
                                          "data.valid=" + Path("valid.jsonl"),
                                          "--set",
                                          "checkpoint.directory=" + Path(run)};
    for (const std::string& override : overrides) {
      arguments.insert(arguments.end(), {"--set", override});
    }
    return arguments;
  }
  // Trains until a step is on file, sends signals to one rank, and waits.
  Outcome Interrupt(const std::string& run,
                    const std::vector<std::string>& overrides, int ranks,
                    const std::vector<std::string>& signals) const {
    return InterruptLorica(Arguments(run, overrides), ranks,
                           Path(run + "/metrics.jsonl"), "grad_norm", signals);
  }
  void ExpectTrained(const Outcome& outcome) const {
    EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  }
  std::vector<double> Losses(const std::string& run) const {
    return LossesIn(Path(run + "/metrics.jsonl"), "loss");
  }
  std::vector<double> ValidLosses(const std::string& run) const {
    return LossesIn(Path(run + "/metrics.jsonl"), "valid_loss");
  }
  // The newest save of a run.
  std::string Latest(const std::string& run) const {
    std::string name = ReadBytes(Path(run + "/latest"));
    name.erase(name.find_last_not_of('\n') + 1);
    return Path(run + "/" + name);
  }
  // The mean loss that `lorica eval` finds on the validation records.
  double Eval(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {
        "eval",   "--model",           kModel,  "--dtype",           "f32",
        "--data", Path("valid.jsonl"), "--out", Path("losses.jsonl")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = RunLorica(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    double sum = 0;
    int64_t tokens = 0;
    std::istringstream lines(ReadBytes(Path("losses.jsonl")));
    for (std::string line; std::getline(lines, line);) {
      const auto record = nlohmann::json::parse(line);
      sum += record["loss_sum"].get<double>();
      tokens += record["tokens"].get<int64_t>();
    }
    return sum / static_cast<double>(tokens);
  }

 private:
  const TempDirectory directory_;
};

// Sums of a few hundred doubles in another order.
constexpr double kSameSum = 1e-12;

TEST_F(TrainRunTest, TrainingHelpsAndTheSavedAdapterEvaluatesAlike) {
  ExpectTrained(Train("run"));
  const std::vector<double> valid = ValidLosses("run");
  ASSERT_EQ(valid.size(), 2u);
  EXPECT_LT(valid.back(), 0.9 * valid.front());
  EXPECT_EQ(Losses("run").size(), 8u);
  EXPECT_NEAR(Eval({"--adapter", Latest("run")}), valid.back(), kSameSum);
  // The fresh adapter's B is zero: the base model, to the bit.
  EXPECT_NEAR(Eval({}), valid.front(), kSameSum);
}

TEST_F(TrainRunTest, ARunDirectoryHoldsWhatItShould) {
  ExpectTrained(
      Train("run", {"checkpoint.every_steps=2", "checkpoint.keep=3"}));
  std::vector<std::string> names;
  bool events = false;
  for (const auto& entry : fs::directory_iterator(Path("run"))) {
    const std::string name = entry.path().filename();
    if (name.rfind("events.out.tfevents.", 0) == 0) {
      events = true;
    } else {
      names.push_back(name);
    }
  }
  EXPECT_TRUE(events);
  EXPECT_THAT(names, testing::UnorderedElementsAre(
                         "run.textproto", "metrics.jsonl", "latest",
                         "step_00000004", "step_00000006", "step_00000008"));
  EXPECT_EQ(ReadBytes(Path("run/latest")), "step_00000008\n");
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(Latest("run"))) {
    files.push_back(entry.path().filename());
  }
  EXPECT_THAT(files,
              testing::UnorderedElementsAre(
                  "adapter_config.json", "adapter_model.safetensors", "state"));
}

TEST_F(TrainRunTest, TheResolvedConfigRunsTheSameAgain) {
  ExpectTrained(Train("run", {"train.steps=3"}));
  const Outcome again =
      RunLorica({"train", "--config", Path("run/run.textproto"), "--set",
                 "checkpoint.directory=" + Path("again"), "--set",
                 "report.metrics=" + Path("again.jsonl")});
  ExpectTrained(again);
  EXPECT_EQ(LossesIn(Path("again.jsonl"), "loss"), Losses("run"));
}

TEST_F(TrainRunTest, TwoTensorRanksTrainAsOneDoes) {
  ExpectTrained(Train("one"));
  const Outcome outcome = Train("two", {"mesh.tensor=2"}, 2);
  ExpectTrained(outcome);
  const std::vector<double> one = Losses("one");
  const std::vector<double> two = Losses("two");
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_NEAR(two[i], one[i], 1e-4) << "step " << i + 1;
  }
}

TEST_F(TrainRunTest, TwoDataRanksChangeNoBit) {
  ExpectTrained(Train("one", {"adapter.dropout=0.1"}));
  ExpectTrained(Train("two", {"adapter.dropout=0.1", "mesh.data=2"}, 2));
  EXPECT_EQ(Losses("two"), Losses("one"));
  EXPECT_EQ(ValidLosses("two"), ValidLosses("one"));
  EXPECT_EQ(ReadBytes(Latest("two") + "/adapter_model.safetensors"),
            ReadBytes(Latest("one") + "/adapter_model.safetensors"));
}

TEST_F(TrainRunTest, AResumedRunIsTheUninterruptedOneToTheLastBit) {
  const std::vector<std::string> changes = {
      "adapter.dropout=0.1", "checkpoint.every_steps=4", "checkpoint.keep=0"};
  ExpectTrained(Train("whole", changes));
  std::vector<std::string> again = changes;
  again.push_back("checkpoint.resume=" + Path("whole/step_00000004"));
  ExpectTrained(Train("again", again));
  const std::vector<double> whole = Losses("whole");
  EXPECT_EQ(Losses("again"),
            std::vector<double>(whole.begin() + 4, whole.end()));
  EXPECT_EQ(ValidLosses("again").back(), ValidLosses("whole").back());
  for (const char* file :
       {"/adapter_model.safetensors", "/state/shard-0-of-1.safetensors"}) {
    EXPECT_EQ(ReadBytes(Latest("again") + file),
              ReadBytes(Latest("whole") + file));
  }
  // In place, after a crash that lost the steps since the save.
  fs::remove_all(Path("whole/step_00000008"));
  WriteBytes(Path("whole/latest"), "step_00000004\n");
  const Outcome outcome = Train("whole", changes);
  ExpectTrained(outcome);
  EXPECT_THAT(outcome.out, HasSubstr("going on after step 4 from " +
                                     Path("whole/step_00000004")));
  EXPECT_EQ(Losses("whole"), whole);
}

TEST_F(TrainRunTest, ARunThatIsDoneHasNothingLeftToDo) {
  ExpectTrained(Train("run", {"train.steps=2"}));
  const std::string before = ReadBytes(Path("run/metrics.jsonl"));
  const Outcome outcome = Train("run", {"train.steps=2"});
  ExpectTrained(outcome);
  EXPECT_THAT(outcome.out, HasSubstr("nothing is left to do"));
  EXPECT_EQ(Losses("run").size(), 2u);
  const Outcome other = Train("run", {"train.steps=2", "train.seed=2"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("train.seed is 2, and was 1"));
  ExpectTrained(Train("run", {"train.steps=1", "checkpoint.resume=NEVER"}));
  EXPECT_EQ(Losses("run").size(), 1u);
}

TEST_F(TrainRunTest, ASignalToOneRankSavesAndEndsWithSuccess) {
  const std::vector<std::string> longer = {"train.steps=100000",
                                           "mesh.tensor=2"};
  const Outcome outcome = Interrupt("run", longer, 2, {"USR1"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              testing::ContainsRegex("stopped after step [0-9]+ by SIGUSR1"));
  const size_t steps = Losses("run").size();
  EXPECT_EQ(Latest("run"),
            Path("run/") + StepName(static_cast<int64_t>(steps)));
  EXPECT_TRUE(fs::exists(Latest("run") + "/state/shard-1-of-2.safetensors"));
}

TEST_F(TrainRunTest, ATimeLimitSavesAndEndsWithSuccess) {
  const Outcome outcome =
      Train("run", {"train.steps=100000", "checkpoint.before_seconds=3"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              testing::ContainsRegex("stopped after step [0-9]+ by "
                                     "checkpoint.before_seconds = 3"));
  EXPECT_TRUE(fs::exists(Latest("run") + "/state/manifest.json"));
}

TEST_F(TrainRunTest, InitFromGoesOnWhereTheAdapterStands) {
  ExpectTrained(Train("run"));
  ExpectTrained(
      Train("more", {"adapter.init_from=" + Latest("run"), "train.steps=1"}));
  EXPECT_EQ(ValidLosses("more").front(), ValidLosses("run").back());
}

TEST_F(TrainRunTest, InitFromMustAgreeWithWhatIsGiven) {
  ExpectTrained(Train("run", {"train.steps=1"}));
  const Outcome outcome =
      Train("more", {"adapter.init_from=" + Latest("run"), "adapter.rank=5"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("adapter.rank is 5"));
  EXPECT_FALSE(fs::exists(Path("more")));
}

TEST_F(TrainRunTest, ALossThatIsNoNumberStopsTheRunAndKeepsTheLastSave) {
  const Outcome outcome =
      Train("run", {"train.learning_rate=1e38", "train.max_grad_norm=0",
                    "train.warmup_steps=0", "checkpoint.every_steps=1"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, testing::ContainsRegex("step [0-9]+: the loss is"));
  EXPECT_TRUE(fs::exists(Latest("run") + "/adapter_model.safetensors"));
}

TEST_F(TrainRunTest, ProgressIsALineAStepFromOneRankAlone) {
  const Outcome outcome =
      Train("run", {"mesh.tensor=2", "report.every_steps=4"}, 2);
  ExpectTrained(outcome);
  std::vector<std::string> steps;
  std::istringstream lines(outcome.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("step ", 0) == 0 &&
        line.find("tokens/s") != std::string::npos) {
      steps.push_back(line.substr(0, line.find(' ', 5)));
    }
  }
  EXPECT_THAT(steps, ElementsAre("step 1/8", "step 4/8", "step 8/8"));
  EXPECT_EQ(outcome.out.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace lorica
