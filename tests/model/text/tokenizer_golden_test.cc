// Token ids and texts as the tokenizers package gives them: tests/golden/.
#include <cstdlib>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_directory.h"
#include "model/text/tokenizer_gguf.h"
#include "model/text/tokenizer_json.h"
#include "runtime/files/gguf.h"
#include "runtime/files/json.h"

namespace lorica {
namespace {

const std::string kGolden = "tests/golden/";

Json ReadGolden(const std::string& name) {
  absl::StatusOr<Json> json = ReadJsonFile(kGolden + name);
  EXPECT_TRUE(json.ok()) << json.status();
  return json.value_or(Json::array());
}

Tokenizer MakeTokenizer(absl::StatusOr<TokenizerData> data) {
  EXPECT_TRUE(data.ok()) << data.status();
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(*std::move(data));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

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
  const std::string name = std::string("tokenizers/") + GetParam();
  const Json json = ReadGolden(name + ".json");
  const Tokenizer tokenizer = MakeTokenizer(ParseTokenizerJson(json, name));
  ExpectCases(tokenizer, ReadGolden(name + "_expected.json"));
}

INSTANTIATE_TEST_SUITE_P(All, TinyTokenizerTest,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2"),
                         [](const auto& tested) {
                           return std::string(tested.param);
                         });

TEST(TokenizerTest, DirectoryAndGgufOfOneModelAgree) {
  const Tokenizer directory =
      MakeTokenizer(ReadTokenizerDirectory(kGolden + "tiny_text/model"));
  const auto file = GgufFile::Open(kGolden + "tiny_text/model.gguf");
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
    const char* variable = std::getenv("LORICA_MODEL");
    const std::string path =
        variable != nullptr ? variable : "models/SmolLM2-135M-Instruct.gguf";
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
