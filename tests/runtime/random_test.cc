#include "runtime/random.h"

#include <array>

#include "gtest/gtest.h"

namespace lorica {
namespace {

// Known answers of Random123's kat_vectors for philox4x32-10.
TEST(PhiloxTest, GivesTheKnownAnswers) {
  const auto equal = [](const PhiloxBlock& block,
                        const std::array<uint32_t, 4>& words) {
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(block.words[i], words[i]) << i;
  };
  equal(Philox(0, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  equal(Philox(~0ull, ~0ull, ~0ull),
        {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // Counter and key are the digits of pi.
  equal(Philox(0x299f31d0a4093822ull, 0x0370734413198a2eull,
               0x85a308d3243f6a88ull),
        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(RandomFieldTest, WordsAreThoseOfTheBlocks) {
  const RandomField field = {5, 9};
  EXPECT_EQ(field.Word(11), Philox(5, 9, 2).words[3]);
}

TEST(RandomFieldTest, NamesAndSaltsGiveStreamsOfTheirOwn) {
  EXPECT_NE(StreamOf("a"), StreamOf("b"));
  EXPECT_NE(StreamOf("a", 1), StreamOf("a", 2));
}

TEST(RandomFieldTest, UniformsAreBelowOne) {
  const RandomField field = {1, 2};
  double sum = 0.0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const float u = field.Uniform(i);
    EXPECT_GE(u, 0.0f);
    EXPECT_LT(u, 1.0f);
    sum += u;
  }
  // Five standard deviations of the mean of 10,000 uniforms.
  EXPECT_NEAR(sum / 10000, 0.5, 5.0 / (100.0 * 3.4641));
}

}  // namespace
}  // namespace lorica
