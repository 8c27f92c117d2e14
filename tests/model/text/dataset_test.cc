#include "model/text/dataset.h"

#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/text/tokenizer_gguf.h"
#include "runtime/files/gguf.h"
#include "tests/support/damage.h"
#include "tests/support/golden_text.h"

namespace lorica {
namespace {

using testing::HasSubstr;

constexpr char kChatMl[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

Tokenizer SmallTokenizer() {
  TokenizerData data = GoldenTokenizerData("smollm");
  data.bos = 1;
  data.eos = 2;
  data.prefix = {1};
  data.chat_template = kChatMl;
  return MakeTokenizer(data);
}

Dataset Parse(const std::string& lines, const DatasetOptions& options = {}) {
  absl::StatusOr<Dataset> dataset =
      ParseDataset(lines, "d.jsonl", SmallTokenizer(), options);
  EXPECT_TRUE(dataset.ok()) << dataset.status();
  return dataset.value_or(Dataset());
}

std::string ErrorOf(const std::string& lines,
                    const DatasetOptions& options = {}) {
  return std::string(ParseDataset(lines, "d.jsonl", SmallTokenizer(), options)
                         .status()
                         .message());
}

// The tokens as text, targets in brackets.
std::string Show(const Record& record) {
  const Tokenizer tokenizer = SmallTokenizer();
  EXPECT_EQ(record.tokens.size(), record.is_target.size());
  std::string text;
  bool inside = false;
  for (size_t i = 0; i < record.tokens.size(); ++i) {
    const bool target = record.is_target[i] != 0;
    text += target == inside ? "" : target ? "[" : "]";
    inside = target;
    text += tokenizer.Decode({record.tokens[i]}, SpecialTokens::kInclude);
  }
  return text + (inside ? "]" : "");
}

TEST(DatasetTest, TextIsLearnedButForItsFirstToken) {
  const std::string line = R"({"text": "x y"})";
  EXPECT_EQ(Show(Parse(line).records[0]), "<|im_start|>[x y<|im_end|>]");
  EXPECT_EQ(Show(Parse(line, {.end_mark = EndMark::kOmit}).records[0]),
            "<|im_start|>[x y]");
  EXPECT_EQ(Show(Parse(R"({"text": "x<|im_end|>"})").records[0]),
            "<|im_start|>[x<|im_end|>]");
}

TEST(DatasetTest, CompletionsAreLearnedAndPromptsAreNot) {
  const std::string line = R"({"prompt": "a:", "completion": " b", "id": 7})";
  EXPECT_EQ(Show(Parse(line).records[0]), "<|im_start|>a:[ b<|im_end|>]");
  EXPECT_EQ(Show(Parse(line, {.end_mark = EndMark::kOmit}).records[0]),
            "<|im_start|>a:[ b<|im_end|>]");
}

TEST(DatasetTest, AssistantTurnsAreLearnedWithTheirEndMark) {
  const std::string line =
      R"({"messages": [{"role": "user", "content": "q"}, )"
      R"({"role": "assistant", "content": " a\n"}, )"
      R"({"role": "user", "content": "r"}, )"
      R"({"role": "assistant", "content": "b <|im_end|> c"}]})";
  EXPECT_EQ(Show(Parse(line).records[0]),
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
            "[ a\n<|im_end|>]\n<|im_start|>user\nr<|im_end|>\n"
            "<|im_start|>assistant\n[b <|im_end|> c<|im_end|>]\n");
}

TEST(DatasetTest, ErrorsNameFileLineAndFault) {
  const std::string good = "{\"text\": \"a\"}\n";
  EXPECT_THAT(ErrorOf(good + "{\"text\": }"),
              HasSubstr("d.jsonl:2: column 10: not valid JSON"));
  EXPECT_THAT(ErrorOf(good + "\n[1]"),
              HasSubstr("d.jsonl:3 is a list of 1; an object is needed"));
  EXPECT_THAT(ErrorOf("{\"text\": 3}"),
              HasSubstr("d.jsonl:1: text is 3; a string is needed"));
  EXPECT_THAT(ErrorOf("{\"prompt\": \"a\"}"),
              HasSubstr("d.jsonl:1: completion is missing"));
  EXPECT_THAT(ErrorOf("{\"texts\": \"a\"}"), HasSubstr("has none of them"));
  EXPECT_THAT(ErrorOf(R"({"text": "a", "prompt": "b", "completion": "c"})"),
              HasSubstr("more than one of them"));
  EXPECT_THAT(ErrorOf("{\"text\": \"a\", \"text\": \"b\"}"),
              HasSubstr("d.jsonl:1: the key \"text\" is there twice"));
  EXPECT_THAT(ErrorOf("{\"text\": \"\xe9\"}"),
              HasSubstr("d.jsonl:1: the text is not UTF-8: byte 10"));
  EXPECT_THAT(ErrorOf(R"({"messages": []})"),
              HasSubstr("d.jsonl:1: messages is []; a list of messages"));
  EXPECT_THAT(ErrorOf(R"({"messages": [{"role": "user"}]})"),
              HasSubstr("d.jsonl:1: messages[0]: content is missing"));
  EXPECT_THAT(
      ErrorOf(R"({"messages": [{"role": "user", "content": ["a"]}]})"),
      HasSubstr("messages[0]: content is a list of 1; a string is needed"));
  std::string deep = R"({"messages": [{"role": "u", "content": "a", "x": )";
  deep += std::string(1000, '[') + std::string(1000, ']') + "}]}";
  EXPECT_THAT(ErrorOf(deep), HasSubstr("nests more than 50 levels"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("d.jsonl holds no record"));
  EXPECT_THAT(ErrorOf("\n \r\n"), HasSubstr("d.jsonl holds no record"));
}

TEST(DatasetTest, LongRecordsAreCutAndCountedOrRefused) {
  const std::string lines =
      "{\"text\": \"abcdefghij\"}\n\n"
      "{\"prompt\": \"zyxwvu\", \"completion\": \"q\"}\r\n{\"text\": \"\"}\n";
  const int64_t whole = Parse(lines).records[0].num_tokens();
  ASSERT_GT(whole, 4);
  const Dataset cut = Parse(lines, {.max_tokens = 4});
  ASSERT_EQ(cut.records.size(), 3u);
  EXPECT_EQ(cut.records[0].num_tokens(), 4);
  EXPECT_EQ(cut.records[1].line, 3);
  EXPECT_EQ(cut.num_cut, 2);
  EXPECT_EQ(cut.records[0].NumTargets(), 3);
  EXPECT_EQ(cut.num_without_target, 1);
  EXPECT_THAT(
      ErrorOf(lines, {.max_tokens = 4, .long_records = LongRecords::kRefuse}),
      HasSubstr("d.jsonl:1: the record has"));
  EXPECT_EQ(
      Parse(lines, {.max_tokens = whole, .long_records = LongRecords::kRefuse})
          .num_cut,
      0);
}

TEST(DatasetTest, NeedsAnEndMarkAndAChatTemplateOnlyToUseThem) {
  const Tokenizer bare = MakeTokenizer(GoldenTokenizerData("smollm"));
  const auto error = [&](const std::string& line) {
    return std::string(
        ParseDataset(line, "d", bare, {.end_mark = EndMark::kOmit})
            .status()
            .message());
  };
  EXPECT_EQ(error(R"({"text": "a"})"), "");
  EXPECT_THAT(error(R"({"prompt": "a", "completion": "b"})"),
              HasSubstr("d:1: the tokenizer names no eos"));
  EXPECT_THAT(error(R"({"messages": [{"role": "a", "content": "b"}]})"),
              HasSubstr("d:1: the model has no chat template"));
}

TEST(DatasetTest, SurvivesDamage) {
  const std::string lines =
      R"({"messages": [{"role": "assistant", "content": "\u00e9 a"}], "x": 1})"
      "\n{\"text\": \"abc\"}\n{\"prompt\": \"p\", \"completion\": \"c\"}\n";
  const Tokenizer tokenizer = SmallTokenizer();
  ForEachDamage(lines, lines.size(), 1000, [&](const std::string& damaged) {
    const auto dataset = ParseDataset(damaged, "d.jsonl", tokenizer, {});
    if (!dataset.ok()) {
      EXPECT_THAT(std::string(dataset.status().message()),
                  testing::StartsWith("d.jsonl"));
    }
  });
}

class SmolLm2DatasetTest : public testing::Test {
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

TEST_F(SmolLm2DatasetTest, ValidationRecordsHaveTheReferencesTokens) {
  const auto dataset = ReadDataset("configs/data/valid.jsonl", *tokenizer_, {});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const Json expected = ReadGolden("smollm2_tokens.json");
  ASSERT_EQ(dataset->records.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    std::vector<int32_t> tokens = expected[i]["prompt"];
    const std::vector<int32_t> completion = expected[i]["completion"];
    std::vector<uint8_t> is_target(tokens.size(), 0);
    tokens.insert(tokens.end(), completion.begin(), completion.end());
    is_target.resize(tokens.size(), 1);
    EXPECT_EQ(dataset->records[i].tokens, tokens);
    EXPECT_EQ(dataset->records[i].is_target, is_target);
  }
}

TEST_F(SmolLm2DatasetTest, ConversationsHaveTheReferencesTargets) {
  int turns = 0;
  for (const Json& expected : ReadGolden("smollm2_chat.json")) {
    if (expected["add_generation_prompt"].get<bool>()) {
      continue;
    }
    const Json line = {{"messages", expected["messages"]}};
    const auto dataset = ParseDataset(line.dump(), "d", *tokenizer_, {});
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    const Record& record = dataset->records[0];
    EXPECT_EQ(record.tokens, expected["ids"].get<std::vector<int32_t>>());
    std::vector<uint8_t> is_target(record.tokens.size(), 0);
    for (const auto& [begin, end] :
         expected["trained"].get<std::vector<std::pair<size_t, size_t>>>()) {
      std::fill(is_target.begin() + static_cast<int64_t>(begin),
                is_target.begin() + static_cast<int64_t>(end), 1);
      ++turns;
    }
    EXPECT_EQ(record.is_target, is_target) << line;
  }
  EXPECT_GT(turns, 4);
}

}  // namespace
}  // namespace lorica
