// `lorica eval` against losses computed by transformers.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/launch/program.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

constexpr char kTiny[] = "tests/golden/tiny_text/";
constexpr char kRecords[] = "configs/data/valid.jsonl";

std::vector<Json> Lines(const std::string& path) {
  std::vector<Json> lines;
  std::istringstream text(ReadBytes(path));
  for (std::string line; std::getline(text, line);) {
    lines.push_back(Json::parse(line));
  }
  return lines;
}

// Relative, as the project promises of whole models in F32.
void ExpectLosses(const std::vector<Json>& lines, const Json& expected,
                  double tolerance) {
  ASSERT_EQ(lines.size(), expected.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["index"], expected[i]["index"]);
    EXPECT_EQ(lines[i]["tokens"], expected[i]["tokens"]);
    const double loss = expected[i]["loss_sum"];
    EXPECT_NEAR(lines[i]["loss_sum"].get<double>(), loss, tolerance * loss)
        << "record " << i;
  }
}

class EvalTest : public testing::TestWithParam<const char*> {
 protected:
  // Losses of the first 40 records, which the golden file has.
  std::vector<Json> Eval(const std::string& dtype, int ranks) {
    const TempDirectory directory;
    WriteBytes(directory / "records.jsonl", FirstLines(kRecords, 40));
    const Outcome outcome = RunLorica(
        {"eval", "--model", Model(), "--data", directory / "records.jsonl",
         "--dtype", dtype, "--out", directory / "losses.jsonl"},
        ranks);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("40 records, "));
    return Lines(directory / "losses.jsonl");
  }
  std::string Model() const {
    return std::string(kTiny) +
           (std::string(GetParam()) == "gguf" ? "model.gguf" : "model");
  }
  Json Expected() const {
    return Json::parse(
        ReadBytes(std::string(kTiny) + "expected.json"))[GetParam()]["losses"];
  }
};

TEST_P(EvalTest, LossesAreThoseOfTransformers) {
  ExpectLosses(Eval("f32", 1), Expected(), 1e-4);
}

TEST_P(EvalTest, TwoTensorRanksMeasureTheSame) {
  ExpectLosses(Eval("f32", 2), Expected(), 1e-4);
}

// Weights and activations have 8 bits: each of the tokens' logits is off by
// some 2^-9 of its size, about ten.
TEST_P(EvalTest, Bf16IsNearF32) {
  ExpectLosses(Eval("bf16", 1), Expected(), 0x1p-6);
}

INSTANTIATE_TEST_SUITE_P(Models, EvalTest, testing::Values("directory", "gguf"),
                         [](const auto& param) {
                           return std::string(param.param);
                         });

TEST(EvalCommandTest, ARecordBeyondTheModelsPositionsIsRefused) {
  const TempDirectory directory;
  std::string text;
  for (int i = 0; i < 600; ++i) text += " 0";
  WriteBytes(directory / "long.jsonl",
             "{\"text\": \"short\"}\n{\"text\": \"" + text + "\"}\n");
  const Outcome outcome =
      RunLorica({"eval", "--model", std::string(kTiny) + "model", "--data",
                 directory / "long.jsonl", "--out", directory / "out.jsonl"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("long.jsonl:2: "));
  EXPECT_FALSE(std::filesystem::exists(directory / "out.jsonl"));
}

TEST(EvalCommandTest, OutIsThereWholeOrNotAtAll) {
  const TempDirectory directory;
  const Outcome outcome =
      RunLorica({"eval", "--model", std::string(kTiny) + "model", "--data",
                 kRecords, "--out", directory / "none/out.jsonl"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("none/out.jsonl"));
  EXPECT_EQ(outcome.out, "");
}

}  // namespace
}  // namespace lorica
