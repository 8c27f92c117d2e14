#include "model/text/tokenizer_gguf.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/text/bpe/unicode.h"
#include "model/text/tokenizer.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/golden_text.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

// A vocabulary of all bytes, <s> and <u>.
class TokenizerGgufTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int byte = 0; byte < 256; ++byte) {
      tokens_.emplace_back();
      AppendUtf8(ByteToCharacter(static_cast<uint8_t>(byte)), &tokens_.back());
      types_ += BytesOfValue<int32_t>(1);
    }
    tokens_.insert(tokens_.end(), {"<s>", "<u>"});
    types_ += BytesOfValue<int32_t>(3) + BytesOfValue<int32_t>(4);
  }

  absl::StatusOr<TokenizerData> Read() {
    GgufBuilder builder;
    builder.String("tokenizer.ggml.model", model_);
    if (!pre_.empty()) {
      builder.String("tokenizer.ggml.pre", pre_);
    }
    builder.Strings("tokenizer.ggml.tokens", tokens_);
    builder.List("tokenizer.ggml.token_type", 5, types_.size() / 4, types_);
    builder.Strings("tokenizer.ggml.merges", merges_);
    if (bos_ >= 0) {
      builder.U32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(bos_));
    }
    if (add_bos_) {
      builder.Bool("tokenizer.ggml.add_bos_token", true);
    }
    const std::string path = directory_ / "model.gguf";
    WriteBytes(path, builder.Build());
    const auto file = GgufFile::Open(path);
    EXPECT_TRUE(file.ok()) << file.status();
    return TokenizerFromGguf(*file);
  }

  TempDirectory directory_;
  std::string model_ = "gpt2";
  std::string pre_;
  std::vector<std::string> tokens_;
  std::string types_;
  std::vector<std::string> merges_;
  int bos_ = -1;
  bool add_bos_ = false;
};

TEST_F(TokenizerGgufTest, NamesOfPreTokenizersMeanWhatTheModelsUse) {
  // Joined wherever the words allow: digits, and spaces in front of one.
  merges_ = {"1 2", "\u0120 \u0120", "12 3"};
  tokens_.insert(tokens_.end(), {"12", "\u0120\u0120", "123"});
  types_ += BytesOfValue<int32_t>(1) + BytesOfValue<int32_t>(1) +
            BytesOfValue<int32_t>(1);
  const auto ids = [&](const std::string& pre, const std::string& text) {
    pre_ = pre;
    bos_ = 256;
    std::vector<std::string> parts;
    const Tokenizer tokenizer = MakeTokenizer(Read());
    const auto encoded = tokenizer.Encode(text, SpecialTokens::kOmit);
    for (const int32_t id : encoded.value_or(std::vector<int32_t>())) {
      parts.push_back(tokenizer.Decode({id}, SpecialTokens::kInclude));
    }
    return parts;
  };
  using testing::ElementsAre;
  const std::string text = "  1231";
  EXPECT_THAT(ids("", text), ElementsAre(" ", " ", "123", "1"));
  EXPECT_THAT(ids("gpt-2", text), ElementsAre(" ", " ", "123", "1"));
  EXPECT_THAT(ids("smollm", text), ElementsAre("  ", "1", "2", "3", "1"));
  EXPECT_THAT(ids("llama-bpe", text), ElementsAre(" ", " ", "123", "1"));
  EXPECT_THAT(ids("llama-bpe", "1212312"),
              ElementsAre("12", "1", "2", "3", "1", "2"));
  EXPECT_THAT(ids("qwen2", text), ElementsAre(" ", " ", "1", "2", "3", "1"));
  EXPECT_THAT(ids("qwen2", "e\u0301"), ElementsAre("\ufffd", "\ufffd"));
}

TEST_F(TokenizerGgufTest, ControlAndUserDefinedTokensAreFoundInText) {
  const Tokenizer tokenizer = MakeTokenizer(Read());
  const auto ids = tokenizer.Encode("<s>a<u>", SpecialTokens::kOmit);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(*ids, testing::ElementsAre(256, 'a', 257));
  EXPECT_EQ(tokenizer.Decode(*ids, SpecialTokens::kOmit), "a<u>");
}

TEST_F(TokenizerGgufTest, AddsBosWhereTheFileOrTheModelSaySo) {
  const auto encode = [&] {
    return *MakeTokenizer(Read()).Encode("a", SpecialTokens::kInclude);
  };
  bos_ = 256;
  EXPECT_THAT(encode(), testing::ElementsAre('a'));
  add_bos_ = true;
  EXPECT_THAT(encode(), testing::ElementsAre(256, 'a'));
  add_bos_ = false;
  pre_ = "llama-bpe";
  EXPECT_THAT(encode(), testing::ElementsAre(256, 'a'));
}

TEST_F(TokenizerGgufTest, RefusesWhatItCannotReadByName) {
  using testing::HasSubstr;
  const auto error = [&] { return std::string(Read().status().message()); };
  pre_ = "tekken";
  EXPECT_THAT(error(), HasSubstr("tokenizer.ggml.pre is 'tekken'"));
  EXPECT_THAT(error(), HasSubstr("smollm"));
  pre_ = "llama-bpe";
  EXPECT_THAT(error(), HasSubstr("bos_token_id"));
  pre_ = "";
  bos_ = 999;
  EXPECT_THAT(error(), HasSubstr("999 is no token"));
  bos_ = -1;
  merges_ = {"a"};
  EXPECT_THAT(error(), HasSubstr("merge 0 is not \"left right\""));
  merges_.clear();
  types_ += types_;
  EXPECT_THAT(error(), HasSubstr("516 types for 258 tokens"));
  model_ = "llama";
  EXPECT_THAT(error(), HasSubstr("tokenizer.ggml.model is 'llama'"));
}

}  // namespace
}  // namespace lorica
