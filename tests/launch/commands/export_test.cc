// `lorica export` as its users run it, and `lorica inspect` of two adapters.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/peft_adapter.h"
#include "model/weight_source.h"
#include "runtime/files/json.h"
#include "tests/launch/program.h"
#include "tests/launch/state/tiny_adapter.h"
#include "tests/support/random_adapter.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/tiny_text/model";
constexpr char kGguf[] = "tests/golden/tiny_text/model.gguf";

// A run directory `run` with one save, whose adapter names `base`.
class ExportTest : public testing::Test {
 protected:
  ExportTest() {
    const auto source = WeightSource::Open(kModel);
    CHECK(source.ok()) << source.status();
    adapter_ = RandomAdapter(
        source->config(),
        {.rank = 4, .alpha = 0.5, .targets = {"q_proj", "v_proj", "down_proj"}},
        1);
    WriteRun(kModel);
  }

  void WriteRun(const std::string& base) {
    adapter_.base_model = base;
    CHECK(WritePeftAdapter(dir_ / "run/step_00000007", adapter_).ok());
    WriteBytes(dir_ / "run/latest", "step_00000007\n");
  }

  Outcome Export(std::vector<std::string> more, int ranks = 1) {
    std::vector<std::string> arguments = {"export", "--checkpoint",
                                          dir_ / "run"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunLorica(arguments, ranks);
  }

  // The mean loss of a few records, as eval prints it.
  double Loss(std::vector<std::string> model) {
    WriteBytes(dir_ / "records.jsonl",
               FirstLines("configs/data/valid.jsonl", 4));
    std::vector<std::string> arguments = {"eval", "--dtype", "f32", "--data",
                                          dir_ / "records.jsonl"};
    arguments.insert(arguments.end(), model.begin(), model.end());
    const Outcome outcome = RunLorica(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const size_t at = outcome.out.find("loss ");
    return at == std::string::npos ? 0
                                   : std::atof(outcome.out.c_str() + at + 5);
  }

  void ExpectRefused(const std::vector<std::string>& arguments,
                     const std::string& message) {
    const Outcome outcome = Export(arguments);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, HasSubstr(message));
    EXPECT_EQ(outcome.out, "");
    EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "out.partial"));
  }

  const TempDirectory dir_;
  PeftAdapter adapter_;
};

TEST_F(ExportTest, AMergedModelMeasuresAsTheModelWithItsAdapter) {
  const Outcome outcome =
      Export({"--format", "merged", "--out", dir_ / "out"}, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("20 tensors, 6 of them merged, F32, "));
  EXPECT_THAT(outcome.out,
              ContainsRegex("logits of 32 tokens against the adapter beside "
                            "the model: largest difference .*e-0[5-9].*; the "
                            "likeliest token is the same for 32\n"));
  const double merged = Loss({"--model", dir_ / "out"});
  const double beside =
      Loss({"--model", kModel, "--adapter", dir_ / "run/step_00000007"});
  const double base = Loss({"--model", kModel});
  EXPECT_NEAR(merged, beside, 1e-5 * beside);
  EXPECT_GT(std::abs(beside - base), 1e-3);
}

TEST_F(ExportTest, SubtractingAndAddingSwitchesTasks) {
  ASSERT_EQ(Export({"--format", "merged", "--out", dir_ / "merged",
                    "--probe_tokens", "0"})
                .exit_code,
            0);
  const auto source = WeightSource::Open(kModel);
  ASSERT_TRUE(source.ok()) << source.status();
  const PeftAdapter other = RandomAdapter(
      source->config(), {.rank = 2, .alpha = 1, .targets = {"up_proj"}}, 2);
  ASSERT_TRUE(WritePeftAdapter(dir_ / "other", other).ok());
  const Outcome outcome = Export(
      {"--format", "merged", "--model", dir_ / "merged", "--subtract", "--add",
       dir_ / "other", "--original", kModel, "--out", dir_ / "out"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ContainsRegex("difference from the original: "
                                         "largest [0-9.]*e-0[6-9]"));
  EXPECT_THAT(outcome.out, HasSubstr("logits of 32 tokens against the "
                                     "original: "));
  const double beside = Loss({"--model", kModel, "--adapter", dir_ / "other"});
  EXPECT_NEAR(Loss({"--model", dir_ / "out"}), beside, 1e-5 * beside);
}

TEST_F(ExportTest, AGgufBaseMergesIntoADirectoryWithATokenizer) {
  WriteRun(kGguf);
  const Outcome outcome = Export({"--format", "merged", "--out", dir_ / "out",
                                  "--dtype", "bf16", "--probe_tokens", "5"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("logits of 5 tokens"));
  const double beside =
      Loss({"--model", kGguf, "--adapter", dir_ / "run/step_00000007"});
  // As much as rounding the weights to 8 bits does.
  EXPECT_NEAR(Loss({"--model", dir_ / "out"}), beside, 0x1p-6 * beside);
}

TEST_F(ExportTest, PeftAndGgufAreWrittenInTheTypeAskedFor) {
  const Outcome peft =
      Export({"--format", "peft", "--out", dir_ / "peft", "--dtype", "bf16"});
  ASSERT_EQ(peft.exit_code, 0) << peft.err;
  const auto adapter = ReadPeftAdapter(dir_ / "peft");
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  for (const auto& [module, factors] : adapter_.modules) {
    for (size_t i = 0; i < factors.a.size(); ++i) {
      ASSERT_EQ(adapter->modules.at(module).a[i],
                static_cast<float>(BFloat16(factors.a[i])));
    }
  }
  const Outcome gguf =
      Export({"--format", "gguf", "--out", dir_ / "a.gguf", "--dtype", "f16"});
  ASSERT_EQ(gguf.exit_code, 0) << gguf.err;
  const Outcome listed = RunLorica({"inspect", "--verify", dir_ / "a.gguf"});
  EXPECT_EQ(listed.exit_code, 0) << listed.err;
  EXPECT_THAT(listed.out, HasSubstr("a GGUF adapter\n"));
  EXPECT_THAT(listed.out, HasSubstr("adapter.lora.alpha = 0.5\n"));
  EXPECT_THAT(listed.out,
              ContainsRegex("blk.1.attn_q.weight.lora_b +\\[96, 4\\] +F16"));
  EXPECT_THAT(listed.out, HasSubstr("every element finite"));
  const Outcome compared = RunLorica({"inspect", dir_ / "run", dir_ / "peft"});
  EXPECT_EQ(compared.exit_code, 0) << compared.err;
  EXPECT_THAT(compared.out,
              ContainsRegex("model.layers.1.mlp.down_proj +[0-9.]+ +[0-9.]+ "
                            "+[0-9.e-]+ +(1.0000|0.9999).. +(1.0000|0.9999)"));
}

TEST_F(ExportTest, WhatCannotBeDoneIsRefusedBeforeAnythingIsWritten) {
  const std::string out = dir_ / "out";
  ExpectRefused({"--format", "peft", "--out", dir_.path()}, " exists; ");
  ExpectRefused({"--format", "merged", "--subtract", "--out", out},
                "--subtract needs --model");
  ExpectRefused({"--format", "merged", "--original", kModel, "--out", out},
                "--original goes with --subtract");
  ExpectRefused({"--format", "gguf", "--add", kModel, "--out", out},
                "--add goes with --format merged");
  ExpectRefused({"--format", "merged", "--probe_tokens", "9999", "--out", out},
                "--probe_tokens is 9999; it must be 0 to ");
  ExpectRefused({"--format", "gguf", "--out", dir_ / "none/out"}, "none/out");
  WriteRun("hub/name");
  ExpectRefused({"--format", "gguf", "--out", out},
                "base_model_name_or_path is \"hub/name\", which does not exist "
                "here; give the model with --model");
  ExpectRefused({"--format", "state", "--out", out}, "manifest.json");
  ExpectRefused({"--format", "peft", "--shards", "x", "--out", out},
                "--shards goes with --format state");
  WriteBytes(dir_ / "run/latest", "../elsewhere");
  ExpectRefused({"--format", "peft", "--out", out},
                "run holds no adapter_config.json");
}

TEST_F(ExportTest, ShardsBecomeOneFile) {
  WriteTinySave(dir_ / "run/step_00000007", /*ranks=*/3, /*seed=*/1);
  // One of them lies elsewhere.
  std::filesystem::create_directories(dir_ / "host/step_00000007/state");
  for (const char* file : {"manifest.json", "shard-2-of-3.safetensors"}) {
    std::filesystem::copy(
        dir_ / absl::StrCat("run/step_00000007/state/", file),
        dir_ / absl::StrCat("host/step_00000007/state/", file));
  }
  const auto before = BitsOf({dir_ / "run/step_00000007"});
  ASSERT_TRUE(before.ok()) << before.status();
  std::filesystem::remove(dir_ /
                          "run/step_00000007/state/shard-2-of-3.safetensors");
  ExpectRefused({"--format", "state", "--out", dir_ / "out"},
                "shard-2-of-3.safetensors");
  const Outcome outcome = Export({"--format", "state", "--out", dir_ / "out",
                                  "--shards", dir_ / "host/step_00000007"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto after = BitsOf({dir_ / "out"});
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(*before, *after);
}

// What other programs make of the files; golden bytes elsewhere stand for this
// where they are absent.
TEST_F(ExportTest, PythonPackagesReadTheFiles) {
  ASSERT_EQ(Export({"--format", "gguf", "--out", dir_ / "a.gguf"}).exit_code,
            0);
  ASSERT_EQ(Export({"--format", "merged", "--out", dir_ / "merged", "--dtype",
                    "bf16", "--probe_tokens", "0"})
                .exit_code,
            0);
  const char* python = std::getenv("LORICA_PYTHON");
  const std::string command = absl::StrCat(
      python != nullptr ? python : "python3",
      " tests/golden/check_containers.py ", dir_ / "run/step_00000007", " ",
      dir_ / "a.gguf", " ", dir_ / "merged", " >", dir_ / "log", " 2>&1");
  const int status = std::system(command.c_str());
  const std::string log = ReadBytes(dir_ / "log");
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << log;
  EXPECT_EQ(WEXITSTATUS(status), 0) << log;
}

}  // namespace
}  // namespace lorica
