#include "model/params.h"

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// SmolLM2-135M's heads, with a small vocabulary.
GptConfig NineHeads() {
  GptConfig config = {.vocab_size = 130,
                      .hidden_size = 576,
                      .num_layers = 2,
                      .num_heads = 9,
                      .num_kv_heads = 3,
                      .head_dim = 64,
                      .intermediate_size = 1536,
                      .max_positions = 128,
                      .tied_head = true};
  config.rope.inv_freq.resize(32);
  return config;
}

TEST(SplitModelTest, WholeKeyValueGroupsGoToARank) {
  const auto split = SplitModel(NineHeads(), 2);
  ASSERT_TRUE(split.ok());
  EXPECT_THAT(split->kv_heads, ElementsAre(Range{0, 128}, Range{128, 192}));
  EXPECT_THAT(split->heads, ElementsAre(Range{0, 384}, Range{384, 576}));
}

TEST(SplitModelTest, RanksBeyondTheKeyValueHeadsShareThem) {
  const auto split = SplitModel(NineHeads(), 4);
  ASSERT_TRUE(split.ok());
  EXPECT_THAT(split->kv_heads, ElementsAre(Range{0, 64}, Range{0, 64},
                                           Range{64, 128}, Range{128, 192}));
  EXPECT_THAT(split->heads, ElementsAre(Range{0, 128}, Range{128, 192},
                                        Range{192, 384}, Range{384, 576}));
}

TEST(SplitModelTest, EverySplitCoversItsDimensionForEveryNumberOfRanks) {
  const GptConfig config = NineHeads();
  for (int ranks = 1; ranks <= 9; ++ranks) {
    const auto split = SplitModel(config, ranks);
    ASSERT_TRUE(split.ok()) << split.status().message();
    for (const Split& s : {split->heads, split->mlp, split->vocab}) {
      int64_t next = 0;
      for (const Range& range : s) {
        EXPECT_EQ(range.begin, next);
        EXPECT_GT(range.size(), 0) << ranks;
        next = range.end;
      }
    }
    EXPECT_EQ(split->heads.back().end, 576);
    EXPECT_EQ(split->mlp.back().end, 1536);
    EXPECT_EQ(split->vocab.back().end, 130);
  }
}

TEST(SplitModelTest, MoreRanksThanHeadsAreRefusedWithTheNumbers) {
  const auto split = SplitModel(NineHeads(), 10);
  ASSERT_FALSE(split.ok());
  EXPECT_THAT(std::string(split.status().message()),
              HasSubstr("9 heads (3 key/value heads) do not divide over 10"));
}

TEST(FrozenParamsTest, ATiedModelHasNoHeadOfItsOwn) {
  GptConfig config = NineHeads();
  const ModelSplit split = *SplitModel(config, 1);
  const auto names = [&] {
    std::set<std::string> set;
    for (const ParamSpec& spec : FrozenParams(config, split)) {
      set.insert(spec.name);
    }
    return set;
  };
  EXPECT_EQ(names().size(), 2u + 2u * 9u);
  EXPECT_EQ(names().count("lm_head.weight"), 0u);
  config.tied_head = false;
  EXPECT_EQ(names().count("lm_head.weight"), 1u);
}

}  // namespace
}  // namespace lorica
