#include "model/text/bpe/added_tokens.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

// The stretches, those of tokens in brackets.
std::vector<std::string> Split(const std::vector<AddedToken>& tokens,
                               const std::string& text) {
  AddedTokenMatcher matcher;
  for (const AddedToken& token : tokens) {
    matcher.Add(token);
  }
  std::vector<std::string> out;
  for (const auto& [range, id] : matcher.Split(text)) {
    const std::string part = text.substr(range.begin, range.end - range.begin);
    out.push_back(id.has_value() ? "[" + part + "]" : part);
  }
  return out;
}

TEST(AddedTokensTest, TakesTheLongestAtEachPlace) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "<a>"},
                                          {.id = 2, .content = "<a><b>"},
                                          {.id = 3, .content = "x"}};
  EXPECT_THAT(Split(tokens, "1<a><a><b>x<a"),
              testing::ElementsAre("1", "[<a>]", "[<a><b>]", "[x]", "<a"));
  EXPECT_THAT(Split(tokens, ""), testing::IsEmpty());
  EXPECT_THAT(Split({}, "<a>"), testing::ElementsAre("<a>"));
}

TEST(AddedTokensTest, TakesSpaceAlongAsTold) {
  const AddedToken left{.id = 1, .content = "L", .lstrip = true};
  const AddedToken right{.id = 2, .content = "R", .rstrip = true};
  EXPECT_THAT(Split({left}, "a \u3000L b"),
              testing::ElementsAre("a", "[ \u3000L]", " b"));
  EXPECT_THAT(Split({right}, "a R\n b"),
              testing::ElementsAre("a ", "[R\n ]", "b"));
  // What one has taken the next cannot.
  EXPECT_THAT(Split({left, right}, "R  L"),
              testing::ElementsAre("[R  ]", "[L]"));
}

TEST(AddedTokensTest, LeavesWordsWholeIfToldTo) {
  const AddedToken word{.id = 1, .content = "cat", .single_word = true};
  EXPECT_THAT(
      Split({word}, "cat cats concat a-cat.\u00e9cat"),
      testing::ElementsAre("[cat]", " cats concat a-", "[cat]", ".\u00e9cat"));
}

}  // namespace
}  // namespace lorica
