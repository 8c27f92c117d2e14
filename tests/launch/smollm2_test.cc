// The commands on a real model against transformers. Skipped where
// launch/fetch_model.sh has not put it.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/launch/program.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using Json = nlohmann::json;

constexpr char kModel[] = "models/SmolLM2-135M-Instruct.gguf";
constexpr int kRecords = 8;  // Of 200, for the sanitizers' sake.

class SmolLm2Test : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) {
      GTEST_SKIP() << kModel << " is absent; launch/fetch_model.sh fetches it";
    }
  }

  void ExpectLosses(int ranks) {
    const TempDirectory directory;
    WriteBytes(directory / "records.jsonl",
               FirstLines("configs/data/valid.jsonl", kRecords));
    const Outcome outcome = RunLorica(
        {"eval", "--model", kModel, "--dtype", "f32", "--data",
         directory / "records.jsonl", "--out", directory / "losses.jsonl"},
        ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const Json expected =
        Json::parse(ReadBytes("tests/golden/smollm2_loss.json"));
    std::istringstream lines(ReadBytes(directory / "losses.jsonl"));
    std::string line;
    for (int i = 0; i < kRecords; ++i) {
      ASSERT_TRUE(std::getline(lines, line));
      const Json record = Json::parse(line);
      EXPECT_EQ(record["tokens"], expected[i]["tokens"]);
      const double loss = expected[i]["loss_sum"];
      EXPECT_NEAR(record["loss_sum"].get<double>(), loss, 1e-4 * loss);
    }
  }
};

TEST_F(SmolLm2Test, LossesAreThoseOfTransformers) { ExpectLosses(1); }

// 9 query and 3 key/value heads: the ranks hold 2 + 1 groups.
TEST_F(SmolLm2Test, TwoTensorRanksMeasureTheSame) { ExpectLosses(2); }

TEST_F(SmolLm2Test, GreedyTextIsThatOfTransformers) {
  for (const Json& expected :
       Json::parse(ReadBytes("tests/golden/smollm2_generate.json"))) {
    const Outcome outcome =
        RunLorica({"generate", "--model", kModel, "--dtype", "f32", "--prompt",
                   expected["prompt"], "--max_tokens",
                   std::to_string(expected["ids"].size())});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, expected["text"].get<std::string>() + "\n");
  }
}

}  // namespace
}  // namespace lorica
