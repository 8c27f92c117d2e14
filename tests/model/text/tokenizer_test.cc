#include "model/text/tokenizer.h"

#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/golden_text.h"

namespace lorica {
namespace {

using testing::HasSubstr;

std::string ErrorOf(TokenizerData data) {
  return std::string(Tokenizer::Create(std::move(data)).status().message());
}

TEST(TokenizerTest, RefusesRolesThatAreNoTokens) {
  const TokenizerData data = GoldenTokenizerData("smollm");
  TokenizerData bos = data;
  bos.bos = 100000;
  EXPECT_THAT(ErrorOf(bos), HasSubstr("bos is token 100000"));
  TokenizerData suffix = data;
  suffix.suffix = {-1};
  EXPECT_THAT(ErrorOf(suffix), HasSubstr("around the text is token -1"));
  TokenizerData hole = data;
  hole.tokens.resize(hole.tokens.size() + 3);
  hole.eos = static_cast<int32_t>(hole.tokens.size()) - 1;
  EXPECT_THAT(ErrorOf(hole), HasSubstr("eos is token"));
}

TEST(TokenizerTest, RefusesAddedTokensThatTheVocabularyContradicts) {
  TokenizerData data = GoldenTokenizerData("smollm");
  data.added_tokens.push_back({.id = 20, .content = "<new>"});
  EXPECT_THAT(ErrorOf(data), HasSubstr("added token '<new>' has id 20"));
}

TEST(TokenizerTest, RefusesTokensThatAreNotUtf8) {
  TokenizerData data = GoldenTokenizerData("smollm");
  data.tokens[30] = "\xff";
  EXPECT_THAT(ErrorOf(data), HasSubstr("token 30 is not UTF-8"));
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = MakeTokenizer(GoldenTokenizerData("smollm"));
  const auto ids = tokenizer.Encode("abc\xe9", SpecialTokens::kOmit);
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("byte 3 of 4"));
}

TEST(TokenizerTest, LeavesHolesAndStrangersOutOfText) {
  TokenizerData data = GoldenTokenizerData("smollm");
  const auto hole = static_cast<int32_t>(data.tokens.size());
  data.tokens.resize(data.tokens.size() + 2);
  data.tokens.back() = "last";
  const Tokenizer tokenizer = MakeTokenizer(data);
  const auto a = tokenizer.Encode("a", SpecialTokens::kOmit);
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(tokenizer.Decode({a->front(), hole, -1, hole + 1, 1 << 30},
                             SpecialTokens::kInclude),
            "alast");
  EXPECT_EQ(tokenizer.num_ids(), hole + 2);
  EXPECT_EQ(tokenizer.token(hole), "");
}

TEST(TokenizerTest, SpecialTokensAreLeftOutOnRequest) {
  const Tokenizer tokenizer = MakeTokenizer(GoldenTokenizerData("qwen2"));
  const std::string text = "<|im_end|>a<tool_call>b<|endoftext|>";
  const auto ids = tokenizer.Encode(text, SpecialTokens::kOmit);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(tokenizer.Decode(*ids, SpecialTokens::kInclude), text);
  EXPECT_EQ(tokenizer.Decode(*ids, SpecialTokens::kOmit), "a<tool_call>b");
  EXPECT_TRUE(tokenizer.IsSpecial(ids->front()));
  EXPECT_FALSE(tokenizer.IsSpecial((*ids)[2]));
  EXPECT_FALSE(tokenizer.IsSpecial(-1));
}

// Ranges follow each other and cover the text.
TEST(TokenizerTest, RangesOfTokensTileTheText) {
  for (const char* name : {"gpt2", "smollm", "llama3", "qwen2"}) {
    const Tokenizer tokenizer = MakeTokenizer(GoldenTokenizerData(name));
    for (const Json& expected :
         ReadGolden(std::string("tokenizers/") + name + "_expected.json")) {
      const std::string text = expected["text"];
      const auto encoding =
          tokenizer.EncodeWithRanges(text, SpecialTokens::kInclude);
      ASSERT_TRUE(encoding.ok()) << encoding.status();
      ASSERT_EQ(encoding->ids.size(), encoding->ranges.size());
      size_t end = 0;
      for (const ByteRange& range : encoding->ranges) {
        EXPECT_LE(range.begin, end) << name << ": " << text;
        EXPECT_GE(range.end, end) << name << ": " << text;
        end = range.end;
      }
      EXPECT_EQ(end, text.size());
    }
  }
}

TEST(TokenizerTest, RangesAreTheTokensBytes) {
  const Tokenizer tokenizer = MakeTokenizer(GoldenTokenizerData("qwen2"));
  // Normalization shortens the first word; the second stays where it was.
  const std::string text = "e\u0301t\u00e9 <|im_end|> caf\u00e9";
  const auto encoding = tokenizer.EncodeWithRanges(text, SpecialTokens::kOmit);
  ASSERT_TRUE(encoding.ok()) << encoding.status();
  std::string after;
  for (size_t i = 0; i < encoding->ids.size(); ++i) {
    const ByteRange& range = encoding->ranges[i];
    if (range.begin >= 6) {
      const std::string bytes =
          tokenizer.DecodeBytes({encoding->ids[i]}, SpecialTokens::kInclude);
      EXPECT_EQ(text.substr(range.begin, range.end - range.begin), bytes);
      after += bytes;
    }
  }
  EXPECT_EQ(after, text.substr(6));
}

TEST(TokenizerTest, ThreadsMayShareIt) {
  const Tokenizer tokenizer = MakeTokenizer(GoldenTokenizerData("smollm"));
  const auto expected = tokenizer.Encode("of many words", SpecialTokens::kOmit);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(*tokenizer.Encode("of many words", SpecialTokens::kOmit),
                  *expected);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace lorica
