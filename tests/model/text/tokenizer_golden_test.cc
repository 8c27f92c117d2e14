// Token ids and texts as the tokenizers package gives them: tests/golden/.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_directory.h"
#include "model/text/tokenizer_gguf.h"
#include "runtime/files/gguf.h"
#include "tests/support/golden_text.h"

namespace lorica {
namespace {

void ExpectCases(const Tokenizer& tokenizer, const Json& cases) {
  EXPECT_GT(cases.size(), 50u);
  for (const Json& expected : cases) {
    const std::string text = expected["text"];
    const std::vector<int32_t> ids = expected["ids"];
    const auto encoded = tokenizer.Encode(text, SpecialTokens::kInclude);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_EQ(*encoded, ids) << text;
    EXPECT_EQ(tokenizer.Decode(ids, SpecialTokens::kInclude),
              expected["decoded"].get<std::string>());
  }
}

class TinyTokenizerTest : public testing::TestWithParam<const char*> {};

TEST_P(TinyTokenizerTest, GivesTheIdsOfTheReference) {
  const std::string name = GetParam();
  ExpectCases(MakeTokenizer(GoldenTokenizerData(name)),
              ReadGolden("tokenizers/" + name + "_expected.json"));
}

INSTANTIATE_TEST_SUITE_P(All, TinyTokenizerTest,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2"),
                         [](const auto& tested) {
                           return std::string(tested.param);
                         });

TEST(TokenizerGoldenTest, DirectoryAndGgufOfOneModelAgree) {
  const Tokenizer directory =
      MakeTokenizer(ReadTokenizerDirectory("tests/golden/tiny_text/model"));
  const auto file = GgufFile::Open("tests/golden/tiny_text/model.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const Tokenizer gguf = MakeTokenizer(TokenizerFromGguf(*file));
  const Json cases = ReadGolden("tokenizers/smollm_expected.json");
  ExpectCases(directory, cases);
  ExpectCases(gguf, cases);
  EXPECT_EQ(directory.num_ids(), gguf.num_ids());
  EXPECT_EQ(directory.bos(), gguf.bos());
  EXPECT_EQ(directory.eos(), gguf.eos());
  EXPECT_EQ(directory.eos(), 2);
  EXPECT_EQ(directory.chat_template(), gguf.chat_template());
  EXPECT_NE(directory.chat_template(), "");
}

class SmolLm2Test : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = SmolLm2Path();
    if (!std::filesystem::exists(path)) {
      GTEST_SKIP() << path << " is not there; launch/fetch_model.sh gets it";
    }
    const auto file = GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    tokenizer_.emplace(MakeTokenizer(TokenizerFromGguf(*file)));
  }

  std::optional<Tokenizer> tokenizer_;
};

TEST_F(SmolLm2Test, GivesTheIdsOfTheReference) {
  ExpectCases(*tokenizer_, ReadGolden("smollm2_tricky.json"));
}

TEST_F(SmolLm2Test, DecodesBrokenCharactersAsTheReference) {
  for (const Json& expected : ReadGolden("smollm2_decode.json")) {
    EXPECT_EQ(tokenizer_->Decode(expected["ids"].get<std::vector<int32_t>>(),
                                 SpecialTokens::kInclude),
              expected["decoded"].get<std::string>())
        << expected["ids"];
  }
}

}  // namespace
}  // namespace lorica
