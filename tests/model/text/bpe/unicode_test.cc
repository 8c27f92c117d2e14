#include "model/text/bpe/unicode.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

TEST(UnicodeTest, AcceptsEveryCodePointAndNothingElse) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c < 0xD800 || c >= 0xE000) {
      std::string text;
      AppendUtf8(c, &text);
      size_t at = 0;
      ASSERT_TRUE(CheckUtf8(text).ok()) << static_cast<uint32_t>(c);
      ASSERT_EQ(NextCodePoint(text, &at), c);
      ASSERT_EQ(at, text.size());
    }
  }
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80",
        "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE4\xB8",
        "\xFF"}) {
    EXPECT_FALSE(CheckUtf8(bad).ok());
  }
}

TEST(UnicodeTest, NamesTheFirstBadByte) {
  EXPECT_THAT(std::string(CheckUtf8("ab\xE9q").message()),
              testing::HasSubstr("byte 2 of 4 is 0xe9"));
}

// The Unicode Standard, table 3-8.
TEST(UnicodeTest, ReplacesEachMaximalIllFormedPartOnce) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(Utf8Lossy("a\xF1\x80\x80\xE1\x80\xC2"
                      "b\x80"
                      "c\x80\xBF"
                      "d"),
            "a" + r + r + r + "b" + r + "c" + r + r + "d");
  EXPECT_EQ(Utf8Lossy("\xED\xA0\x80"), r + r + r);
}

TEST(UnicodeTest, EveryByteHasItsCharacter) {
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = ByteToCharacter(static_cast<uint8_t>(byte));
    EXPECT_EQ(CharacterToByte(character), byte);
    EXPECT_FALSE(IsWhiteSpace(character));
  }
  EXPECT_EQ(ByteToCharacter(' '), U'\u0120');
  EXPECT_EQ(CharacterToByte(U' '), -1);
  EXPECT_EQ(CharacterToByte(U'\u4e2d'), -1);
}

TEST(UnicodeTest, ComposesAndSaysWhereFrom) {
  std::vector<int64_t> source;
  // x, e + acute, y, and a Hangul syllable of three jamo.
  const std::string text = "xe\u0301y\u1112\u1161\u11ab";
  EXPECT_EQ(ComposeNfc(text, &source), "x\u00e9y\ud55c");
  EXPECT_THAT(source, testing::ElementsAre(0, 1, 1, 4, 4, 4, 4));
}

TEST(UnicodeTest, KnowsPropertiesOfCharacters) {
  EXPECT_TRUE(IsWhiteSpace(U'\u3000'));
  EXPECT_FALSE(IsWhiteSpace(U'\u180e'));
  EXPECT_FALSE(IsWhiteSpace(U'\u200b'));
  EXPECT_TRUE(IsNumeric(U'\u00bd'));
  EXPECT_TRUE(IsNumeric(U'\u0663'));
  EXPECT_FALSE(IsNumeric(U'\u4e94'));
  EXPECT_TRUE(IsNumeric(U'\U00016130'));  // Since Unicode 16,
  EXPECT_TRUE(IsNumeric(U'\U00011DE0'));  // and 17.
  EXPECT_TRUE(IsWord(U'_'));
  EXPECT_TRUE(IsWord(U'\u0301'));
  EXPECT_FALSE(IsWord(U'-'));
  EXPECT_EQ(ToUpper("\u00e9a\u00df"), "\u00c9ASS");
  EXPECT_EQ(ToLower("\u00c9A"), "\u00e9a");
  EXPECT_EQ(NumCodePoints("a\u00e9\u4e2d\U0001f600"), 4);
}

}  // namespace
}  // namespace lorica
