#include "model/text/tokenizer_json.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/damage.h"
#include "tests/support/golden_text.h"

namespace lorica {
namespace {

// A tokenizer.json of four tokens, with parts replaced.
Json Small(const std::string& patch = "{}") {
  Json json = Json::parse(R"({
    "added_tokens": [{"id": 3, "content": "<s>", "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
              "merges": ["a b"]}
  })");
  json.merge_patch(Json::parse(patch));
  return json;
}

std::string ErrorOf(const std::string& patch) {
  const auto data = ParseTokenizerJson(Small(patch), "f.json");
  return std::string(data.status().message());
}

TEST(TokenizerJsonTest, ReadsTheParts) {
  const auto data = ParseTokenizerJson(Small(), "f.json");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT(data->tokens, testing::ElementsAre("a", "b", "ab", "<s>"));
  EXPECT_THAT(data->merges, testing::ElementsAre(testing::Pair("a", "b")));
  ASSERT_EQ(data->added_tokens.size(), 1u);
  EXPECT_TRUE(data->added_tokens[0].special);
  EXPECT_FALSE(data->added_tokens[0].normalized);
  EXPECT_FALSE(data->added_tokens[0].in_model);
}

TEST(TokenizerJsonTest, ReadsMergesInBothForms) {
  const auto data = ParseTokenizerJson(
      Small(R"({"model": {"merges": [["a", "b"]]}})"), "f.json");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT(data->merges, testing::ElementsAre(testing::Pair("a", "b")));
}

TEST(TokenizerJsonTest, PutsTheTemplateAroundTheText) {
  const auto data = ParseTokenizerJson(Small(R"({"post_processor": {
      "type": "Sequence", "processors": [{"type": "ByteLevel"},
      {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                  {"Sequence": {"id": "A", "type_id": 0}},
                  {"SpecialToken": {"id": "<s>", "type_id": 0}}],
       "special_tokens": {"<s>": {"id": "<s>", "ids": [3, 1],
                                  "tokens": ["<s>", "b"]}}}]}})"),
                                       "f.json");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT(data->prefix, testing::ElementsAre(3, 1));
  EXPECT_THAT(data->suffix, testing::ElementsAre(3, 1));
}

TEST(TokenizerJsonTest, RefusesByNameWhatItLacks) {
  using testing::HasSubstr;
  EXPECT_THAT(ErrorOf(R"({"model": {"type": "Unigram"}})"),
              HasSubstr("f.json: a model of type Unigram is not supported"));
  EXPECT_THAT(ErrorOf(R"({"model": {"byte_fallback": true}})"),
              HasSubstr("byte_fallback"));
  EXPECT_THAT(ErrorOf(R"({"model": {"dropout": 0.1}})"), HasSubstr("dropout"));
  EXPECT_THAT(ErrorOf(R"({"model": {"end_of_word_suffix": "</w>"}})"),
              HasSubstr("end_of_word_suffix '</w>'"));
  EXPECT_THAT(ErrorOf(R"({"normalizer": {"type": "NFKC"}})"),
              HasSubstr("the normalizer NFKC"));
  EXPECT_THAT(ErrorOf(R"({"pre_tokenizer": {"type": "Metaspace"}})"),
              HasSubstr("the pre-tokenizer Metaspace"));
  EXPECT_THAT(ErrorOf(R"({"post_processor": {"type": "BertProcessing"}})"),
              HasSubstr("the post-processor BertProcessing"));
  EXPECT_THAT(ErrorOf(R"({"decoder": {"type": "Metaspace"}})"),
              HasSubstr("the decoder Metaspace"));
  EXPECT_THAT(ErrorOf(R"({"decoder": null})"), HasSubstr("0 decoders"));
}

TEST(TokenizerJsonTest, RefusesBrokenVocabularies) {
  using testing::HasSubstr;
  EXPECT_THAT(ErrorOf(R"({"model": {"vocab": {"c": 2}}})"),
              HasSubstr("share the id 2"));
  EXPECT_THAT(ErrorOf(R"({"model": {"vocab": {"c": 4000000000}}})"),
              HasSubstr("token 'c' has id 4000000000, out of range"));
  EXPECT_THAT(ErrorOf(R"({"model": {"vocab": {"c": -1}}})"),
              HasSubstr("id -1"));
  EXPECT_THAT(ErrorOf(R"({"model": {"vocab": {"c": "3"}}})"),
              HasSubstr("not an integer"));
  EXPECT_THAT(ErrorOf(R"({"model": {"vocab": [1]}})"),
              HasSubstr("vocab is not an object"));
  EXPECT_THAT(ErrorOf(R"({"model": {"merges": ["a b c"]}})"),
              HasSubstr("merge 0 is neither"));
  EXPECT_THAT(ErrorOf(R"({"model": {"merges": [["a"]]}})"),
              HasSubstr("merge 0 is neither"));
  EXPECT_THAT(ErrorOf(R"({"model": {"merges": null}})"),
              HasSubstr("merges is missing"));
  EXPECT_THAT(ErrorOf(R"({"model": {"unk_token": "?"}})"),
              HasSubstr("unk_token"));
  EXPECT_THAT(ErrorOf(R"({"added_tokens": [{"id": 0, "content": "x"}]})"),
              HasSubstr("tokens 'a' and 'x' share the id 0"));
  EXPECT_THAT(ErrorOf(R"({"model": null})"), HasSubstr("model is missing"));
}

// Whatever a file holds, reading it ends in a tokenizer or an error.
TEST(TokenizerJsonTest, SurvivesDamage) {
  const std::string bytes = Small().dump();
  int good = 0;
  ForEachDamage(bytes, bytes.size(), 2000, [&](const std::string& damaged) {
    const absl::StatusOr<Json> json = ParseJson(damaged, "f.json");
    if (!json.ok()) {
      return;
    }
    absl::StatusOr<TokenizerData> data = ParseTokenizerJson(*json, "f.json");
    if (!data.ok()) {
      return;
    }
    const auto tokenizer = Tokenizer::Create(*std::move(data));
    if (tokenizer.ok()) {
      ++good;
      EXPECT_TRUE(tokenizer->Encode("abba <s>", SpecialTokens::kInclude).ok());
    }
  });
  EXPECT_GT(good, 0);
}

}  // namespace
}  // namespace lorica
