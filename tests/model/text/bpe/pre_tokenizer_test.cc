#include "model/text/bpe/pre_tokenizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/text/bpe/unicode.h"

namespace lorica {
namespace {

const ByteLevelStep kBytes{.use_regex = false};

// The words, written as text again.
std::vector<std::string> Words(const std::vector<PreTokenizerStep>& steps,
                               const std::string& text) {
  const absl::StatusOr<PreTokenizer> pre_tokenizer =
      PreTokenizer::Create(steps);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  std::vector<std::string> words;
  const absl::Status status =
      pre_tokenizer->Split(text, [&](absl::string_view word, int64_t begin) {
        std::string bytes;
        for (size_t at = 0; at < word.size();) {
          bytes.push_back(
              static_cast<char>(CharacterToByte(NextCodePoint(word, &at))));
        }
        const bool added =
            begin < 0 || text.compare(begin, bytes.size(), bytes) != 0;
        EXPECT_TRUE(!added || text.compare(begin + 1, bytes.size() - 1,
                                           bytes.substr(1)) == 0);
        words.push_back(bytes);
      });
  EXPECT_TRUE(status.ok()) << status;
  return words;
}

std::vector<PreTokenizerStep> SplitAt(SplitBehavior behavior, bool invert) {
  return {SplitStep{.pattern = "-",
                    .kind = PatternKind::kLiteral,
                    .behavior = behavior,
                    .invert = invert},
          kBytes};
}

// The examples of the reference's documentation, and the same inverted.
TEST(PreTokenizerTest, JoinsMatchesAsTheBehaviorSays) {
  const std::string text = "the-final--countdown";
  using testing::ElementsAre;
  EXPECT_THAT(Words(SplitAt(SplitBehavior::kRemoved, false), text),
              ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(Words(SplitAt(SplitBehavior::kIsolated, false), text),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(Words(SplitAt(SplitBehavior::kMergedWithPrevious, false), text),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(Words(SplitAt(SplitBehavior::kMergedWithNext, false), text),
              ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(Words(SplitAt(SplitBehavior::kContiguous, false), text),
              ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(Words(SplitAt(SplitBehavior::kRemoved, true), text),
              ElementsAre("-", "-", "-"));
}

TEST(PreTokenizerTest, SplitsNumbersOneByOneOrAsRuns) {
  EXPECT_THAT(Words({DigitsStep{.individual = true}, kBytes}, "a12\u00bdb"),
              testing::ElementsAre("a", "1", "2", "\u00bd", "b"));
  EXPECT_THAT(Words({DigitsStep{.individual = false}, kBytes}, "a12\u00bdb3"),
              testing::ElementsAre("a", "12\u00bd", "b", "3"));
}

TEST(PreTokenizerTest, AddsASpaceToEachPieceWithoutOne) {
  EXPECT_THAT(Words({ByteLevelStep{.add_prefix_space = true}}, "hi there"),
              testing::ElementsAre(" hi", " there"));
  EXPECT_THAT(Words({ByteLevelStep{.add_prefix_space = true}}, " hi"),
              testing::ElementsAre(" hi"));
  EXPECT_THAT(Words({DigitsStep{.individual = true},
                     ByteLevelStep{.add_prefix_space = true}},
                    "a1"),
              testing::ElementsAre(" a", " 1"));
}

TEST(PreTokenizerTest, NeedsByteLevelLastAndOnce) {
  EXPECT_FALSE(PreTokenizer::Create({}).ok());
  EXPECT_FALSE(PreTokenizer::Create({DigitsStep{}}).ok());
  EXPECT_FALSE(PreTokenizer::Create({kBytes, DigitsStep{}}).ok());
  EXPECT_FALSE(PreTokenizer::Create({kBytes, kBytes}).ok());
  EXPECT_FALSE(
      PreTokenizer::Create(
          {SplitStep{.pattern = "", .kind = PatternKind::kLiteral}, kBytes})
          .ok());
}

}  // namespace
}  // namespace lorica
