#include "model/text/bpe/regex.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

std::vector<std::string> Matches(const std::string& pattern,
                                 const std::string& text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<ByteRange> ranges;
  EXPECT_TRUE(regex->FindAll(text, &ranges).ok());
  std::vector<std::string> matches;
  for (const ByteRange& range : ranges) {
    matches.push_back(text.substr(range.begin, range.end - range.begin));
  }
  return matches;
}

TEST(RegexTest, ReadsWhatPcre2ReadsOtherwiseAsOnigurumaDoes) {
  // U+180E is no white space, U+0085 is.
  EXPECT_THAT(Matches(R"(\s)", "\u180e\u0085"), testing::ElementsAre("\u0085"));
  EXPECT_THAT(Matches(R"([\s])", "\u180e\u3000"),
              testing::ElementsAre("\u3000"));
  EXPECT_THAT(Matches(R"([^\S\n]+)", " \n\t\u180e"),
              testing::ElementsAre(" ", "\t"));
  // Marks are word characters, \v is one character.
  EXPECT_THAT(Matches(R"(\w+)", "e\u0301_1-\u20dd"),
              testing::ElementsAre("e\u0301_1", "\u20dd"));
  EXPECT_THAT(Matches(R"(\v)", "\n\x0b"), testing::ElementsAre("\x0b"));
  EXPECT_THAT(Matches(R"(\u00e9)", "\u00e9"), testing::ElementsAre("\u00e9"));
  // ^ and $ are those of lines, m lets the dot match newlines.
  EXPECT_THAT(Matches(R"(^a$)", "a\na"), testing::ElementsAre("a", "a"));
  EXPECT_THAT(Matches(R"((?m:a.b))", "a\nb"), testing::ElementsAre("a\nb"));
  EXPECT_THAT(Matches(R"(a.b)", "a\nb"), testing::IsEmpty());
  EXPECT_THAT(Matches(R"((?i:'s)x)", "'Sx'SX"), testing::ElementsAre("'Sx"));
}

// U+31350 is a letter since Unicode 15, U+16130 a digit since 16.
TEST(RegexTest, KnowsCharactersNewerThanPcre2) {
  EXPECT_THAT(Matches(R"(\p{L}+)", "a\U00031350b"), testing::SizeIs(1));
  EXPECT_THAT(Matches(R"([\p{N}-]+)", "1\U00016130-"), testing::SizeIs(1));
  EXPECT_THAT(Matches(R"(\P{L})", "\U00031350-"), testing::ElementsAre("-"));
  EXPECT_THAT(Matches(R"([^\s\p{L}\p{N}]+)", "\U00031350\U00016130"),
              testing::IsEmpty());
  EXPECT_THAT(Matches(R"(\p{Lu})", "aB"), testing::ElementsAre("B"));
}

TEST(RegexTest, RefusesWhatHasNoTranslation) {
  for (const char* pattern :
       {R"(a{1,3}+)", R"(a{,3})", R"([a[b]])", R"([a&&b])", R"(a(?i)b)",
        R"(\h)", R"([\W])", R"(\b)", R"((*UTF))", R"((?x: a))", "a\\"}) {
    EXPECT_EQ(Regex::Compile(pattern).status().code(),
              absl::StatusCode::kUnimplemented)
        << pattern;
  }
  EXPECT_EQ(Regex::Compile("a(").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(RegexTest, FindsEmptyMatchesOnceAPlace) {
  EXPECT_THAT(Matches("x*", "axxb"), testing::ElementsAre("", "xx", ""));
  EXPECT_THAT(Matches("(?=\u00e9)", "a\u00e9\u00e9"),
              testing::ElementsAre("", ""));
}

TEST(RegexTest, GoesThroughLongRuns) {
  const std::string spaces(1 << 20, ' ');
  EXPECT_THAT(Matches(R"(\s+(?!\S)|\s+)", spaces + "a"), testing::SizeIs(2));
  EXPECT_THAT(Matches(R"([^\s]+)", std::string(1 << 20, 'x')),
              testing::SizeIs(1));
}

TEST(RegexTest, FailsWhereBacktrackingHasNoEnd) {
  const absl::StatusOr<Regex> regex = Regex::Compile("(?:a|aa)+(?=c)");
  ASSERT_TRUE(regex.ok()) << regex.status();
  std::vector<ByteRange> ranges;
  EXPECT_EQ(regex->FindAll(std::string(100, 'a') + "d", &ranges).code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace lorica
