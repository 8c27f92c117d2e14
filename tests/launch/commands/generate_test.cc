// `lorica generate` against continuations by transformers and llama.cpp.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
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

Json Greedy(const std::string& kind) {
  return Json::parse(
      ReadBytes(std::string(kTiny) + "expected.json"))[kind]["greedy"];
}

std::string Generate(std::vector<std::string> more, int ranks = 1) {
  std::vector<std::string> arguments = {"generate", "--dtype", "f32"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = RunLorica(arguments, ranks);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return outcome.out;
}

void ExpectGreedy(const std::string& model, const Json& expected, int ranks) {
  EXPECT_EQ(Generate({"--model", kTiny + model, "--prompt", expected["prompt"],
                      "--max_tokens", std::to_string(expected["ids"].size())},
                     ranks),
            expected["text"].get<std::string>() + "\n");
}

TEST(GenerateTest, GreedyTextIsThatOfTransformers) {
  for (const Json& expected : Greedy("directory")) {
    ExpectGreedy("model", expected, 1);
  }
}

TEST(GenerateTest, GreedyTextOfAGgufFileIsThatOfLlamaCpp) {
  for (const Json& expected : Greedy("gguf")) {
    ExpectGreedy("model.gguf", expected, 1);
  }
}

TEST(GenerateTest, TwoTensorRanksWriteTheSameOnce) {
  ExpectGreedy("model", Greedy("directory")[0], 2);
}

TEST(GenerateTest, ASeedDrawsTheSameTextAgain) {
  const auto draw = [](const std::string& seed) {
    return Generate({"--model", std::string(kTiny) + "model", "--prompt",
                     "Package: ", "--max_tokens", "24", "--temperature", "1",
                     "--seed", seed});
  };
  const std::string text = draw("1");
  EXPECT_EQ(draw("1"), text);
  EXPECT_NE(draw("2"), text);
}

TEST(GenerateTest, ChatPutsThePromptInTheModelsTemplate) {
  const auto generate = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--model", std::string(kTiny) + "model",
                             "--max_tokens", "12"});
    return Generate(more);
  };
  EXPECT_EQ(generate({"--prompt", "Hello!", "--chat"}),
            generate({"--prompt",
                      "<|im_start|>user\nHello!<|im_end|>\n"
                      "<|im_start|>assistant\n"}));
}

TEST(GenerateTest, TheLastPositionEndsTheText) {
  std::string prompt;
  for (int i = 0; i < 255; ++i) prompt += " 0";
  const std::string text =
      Generate({"--model", std::string(kTiny) + "model", "--prompt", prompt,
                "--max_tokens", "1000"});
  EXPECT_LT(text.size(), 100u);
}

TEST(GenerateTest, ImpossibleFlagsAreRefused) {
  const auto error = [](std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "generate", "--model", std::string(kTiny) + "model", "--prompt", "x"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = RunLorica(arguments);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_EQ(outcome.out, "");
    return outcome.err;
  };
  EXPECT_EQ(error({"--max_tokens", "0"}),
            "lorica: --max_tokens is 0; it must be at least 1\n");
  EXPECT_EQ(error({"--temperature", "-1"}),
            "lorica: --temperature is -1; it must not be below 0\n");
  EXPECT_THAT(error({"--adapter", "/nonexistent"}), HasSubstr("/nonexistent"));
}

TEST(GenerateTest, AnEmptyPromptIsRefused) {
  const Outcome outcome = RunLorica(
      {"generate", "--model", std::string(kTiny) + "model", "--prompt", ""});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.err, "lorica: --prompt is empty; give it some text\n");
}

TEST(GenerateTest, APromptThatFillsThePositionsIsRefused) {
  std::string prompt;
  for (int i = 0; i < 600; ++i) prompt += " 0";
  const Outcome outcome =
      RunLorica({"generate", "--model", std::string(kTiny) + "model",
                 "--prompt", prompt});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("the model has 512 positions"));
}

}  // namespace
}  // namespace lorica
