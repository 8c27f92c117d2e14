// What users get wrong: exit code 2 and the reason, once, before anything is
// written, on one rank and on two.
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/launch/program.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

constexpr char kTiny[] = "tests/golden/tiny_text/";

// `overrides` follow --set; DIR stands for the test's directory.
struct BadInput {
  const char* name;
  std::vector<std::string> overrides;
  const char* message;
};
std::ostream& operator<<(std::ostream& out, const BadInput& bad) {
  return out << bad.name;
}

std::string Replaced(std::string text, const std::string& what,
                     const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos;
       at += with.size()) {
    text.replace(at, what.size(), with);
  }
  return text;
}

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) {
    ++count;
  }
  return count;
}

class BadInputTest : public testing::TestWithParam<BadInput> {
 protected:
  BadInputTest() {
    WriteBytes(directory_ / "run.textproto", R"(
      model { path: "tests/golden/tiny_text/model" }
      data { sequence_length: 256 }
      train { steps: 2 global_batch: 2 micro_batch: 1 }
    )");
    const std::string records = FirstLines("configs/data/valid.jsonl", 4);
    WriteBytes(directory_ / "good.jsonl", records);
    WriteBytes(directory_ / "empty.jsonl", "\n\n");
    WriteBytes(directory_ / "malformed.jsonl", records + "{\"text\": \"a}\n");
    WriteBytes(directory_ / "unknown.jsonl", records + "{\"txt\": \"a\"}\n");
    WriteBytes(directory_ / "untrained.jsonl",
               "{\"prompt\": \"" + std::string(2000, 'x') +
                   "\", \"completion\": \"y\"}\n");
    WriteBytes(directory_ / "latin1.jsonl", "{\"text\": \"caf\xe9\"}\n");
    const std::string gguf = ReadBytes(std::string(kTiny) + "model.gguf");
    WriteBytes(directory_ / "short.gguf", gguf.substr(0, gguf.size() / 2));
    WriteBytes(directory_ / "noise.gguf", "GGUF" + std::string(100, '\xff'));
    CopyModel("cut_weights");
    const std::string weights =
        ReadBytes(directory_ / "cut_weights/model.safetensors");
    WriteBytes(directory_ / "cut_weights/model.safetensors",
               weights.substr(0, weights.size() - 1000));
    CopyModel("no_tokenizer");
    fs::remove(directory_ / "no_tokenizer/tokenizer.json");
    CopyModel("other_family");
    WriteBytes(directory_ / "other_family/config.json",
               Replaced(ReadBytes(directory_ / "other_family/config.json"),
                        "LlamaForCausalLM", "MambaForCausalLM"));
    CopyModel("bad_json");
    WriteBytes(directory_ / "bad_json/config.json", "{\n  \"a\": }\n");
  }

  void CopyModel(const std::string& name) {
    fs::copy(std::string(kTiny) + "model", directory_ / name);
  }

  void ExpectRefused(int ranks) {
    std::vector<std::string> arguments = {"train", "--config",
                                          directory_ / "run.textproto"};
    std::vector<std::string> overrides = {"data.train=DIR/good.jsonl",
                                          "checkpoint.directory=DIR/run"};
    if (ranks > 1) overrides.push_back("mesh.tensor=2");
    overrides.insert(overrides.end(), GetParam().overrides.begin(),
                     GetParam().overrides.end());
    for (const std::string& override : overrides) {
      arguments.push_back("--set");
      arguments.push_back(Replaced(override, "DIR", directory_.path()));
    }
    const Outcome outcome = RunLorica(arguments, ranks);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_EQ(Count(outcome.err, "lorica: "), 1) << outcome.err;
    EXPECT_THAT(outcome.err,
                testing::HasSubstr(
                    Replaced(GetParam().message, "DIR", directory_.path())));
    EXPECT_FALSE(fs::exists(directory_ / "run"));
  }

 private:
  const TempDirectory directory_;
};

TEST_P(BadInputTest, IsRefusedOnOneRank) { ExpectRefused(1); }

INSTANTIATE_TEST_SUITE_P(
    Model, BadInputTest,
    testing::Values(
        BadInput{"Missing", {"model.path=/nonexistent.gguf"}, "/nonexistent"},
        BadInput{"TruncatedGguf", {"model.path=DIR/short.gguf"}, "short.gguf"},
        BadInput{"NoCudaHere", {"device=CUDA"}, "built without CUDA"},
        BadInput{"NoGraphsHere", {"pass_graphs=4"}, "pass_graphs is 4"},
        BadInput{"NoiseGguf", {"model.path=DIR/noise.gguf"}, "noise.gguf"},
        BadInput{"TruncatedSafetensors",
                 {"model.path=DIR/cut_weights"},
                 "model.safetensors"},
        BadInput{
            "NoTokenizer", {"model.path=DIR/no_tokenizer"}, "tokenizer.json"},
        BadInput{
            "OtherFamily", {"model.path=DIR/other_family"}, "MambaForCausalLM"},
        BadInput{
            "MalformedConfig", {"model.path=DIR/bad_json"}, "config.json"}),
    [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Data, BadInputTest,
    testing::Values(
        BadInput{"Missing", {"data.train=DIR/none.jsonl"}, "none.jsonl"},
        BadInput{"Empty", {"data.train=DIR/empty.jsonl"}, "empty.jsonl"},
        BadInput{"MalformedJson",
                 {"data.train=DIR/malformed.jsonl"},
                 "malformed.jsonl:5"},
        BadInput{
            "UnknownKeys", {"data.train=DIR/unknown.jsonl"}, "unknown.jsonl:5"},
        BadInput{"NotUtf8", {"data.train=DIR/latin1.jsonl"}, "latin1.jsonl:1"},
        BadInput{"NothingTrained",
                 {"data.train=DIR/untrained.jsonl"},
                 "untrained.jsonl"},
        BadInput{"Overlong",
                 {"data.sequence_length=16", "data.overlong=REFUSE"},
                 "good.jsonl:1"},
        BadInput{
            "BeyondThePositions",
            {"data.train=DIR/untrained.jsonl", "data.sequence_length=4096"},
            "data.sequence_length is 4096 and DIR/untrained.jsonl:1 has "},
        BadInput{"BadValidation",
                 {"data.valid=DIR/malformed.jsonl"},
                 "malformed.jsonl:5"}),
    [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Adapter, BadInputTest,
    testing::Values(
        BadInput{"NoSuchTarget", {"adapter.target=c_attn"}, "c_attn"},
        BadInput{"RankZero", {"adapter.rank=0"}, "adapter.rank is 0"},
        BadInput{"RankAboveTheMatrix", {"adapter.rank=49"}, "49"},
        BadInput{
            "InitFromNowhere", {"adapter.init_from=DIR/none"}, "DIR/none"}),
    [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Run, BadInputTest,
    testing::Values(
        BadInput{
            "MeshOfOtherSize", {"mesh.data=3", "train.global_batch=3"}, "mesh"},
        BadInput{"DirectoryBelowAFile",
                 {"checkpoint.directory=DIR/good.jsonl/run"},
                 "checkpoint.directory"},
        BadInput{"UnknownField", {"train.stps=3"}, "has no field \"stps\""}),
    [](const auto& param) { return std::string(param.param.name); });

class BadInputOnTwoRanksTest : public BadInputTest {};

TEST_P(BadInputOnTwoRanksTest, IsRefusedOnce) { ExpectRefused(2); }

INSTANTIATE_TEST_SUITE_P(
    Run, BadInputOnTwoRanksTest,
    testing::Values(
        BadInput{
            "MissingModel", {"model.path=/nonexistent.gguf"}, "/nonexistent"},
        BadInput{"MalformedJson",
                 {"data.train=DIR/malformed.jsonl"},
                 "malformed.jsonl:5"},
        BadInput{"NoSuchTarget", {"adapter.target=c_attn"}, "c_attn"},
        BadInput{"MeshOfOtherSize", {"mesh.tensor=3"}, "mesh"},
        BadInput{"DirectoryBelowAFile",
                 {"checkpoint.directory=DIR/good.jsonl/run"},
                 "checkpoint.directory"},
        BadInput{"UnknownField", {"train.stps=3"}, "has no field \"stps\""}),
    [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace lorica
