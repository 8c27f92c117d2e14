#include "model/params.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

using testing::Each;
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

GptConfig SevenFusedHeads() {
  return {.family = Family::kGpt2,
          .norm = NormKind::kLayer,
          .positions = Positions::kLearned,
          .activation = Activation::kGelu,
          .vocab_size = 103,
          .hidden_size = 28,
          .num_layers = 1,
          .num_heads = 7,
          .num_kv_heads = 7,
          .head_dim = 4,
          .intermediate_size = 51,
          .max_positions = 24,
          .tied_head = true};
}

// Sections, a bias of the first rank's and rows of positions among them.
TEST(FrozenParamsTest, EachElementIsHeldByOneRankOrByAll) {
  const GptConfig config = SevenFusedHeads();
  for (const int ranks : {1, 2, 3, 7}) {
    const ModelSplit split = *SplitModel(config, ranks);
    std::map<std::string, std::vector<int>> holders;
    for (const ParamSpec& param : FrozenParams(config, split)) {
      std::vector<int>& held = holders[param.name];
      held.resize(static_cast<size_t>(param.shape.elements()));
      for (int rank = 0; rank < ranks; ++rank) {
        const Slice slice = SliceOf(param.shard, param.shape, rank);
        const int64_t cols = param.shape[param.shape.rank() == 2 ? 1 : 0];
        for (int64_t r = slice.rows.begin; r < slice.rows.end; ++r) {
          for (int64_t c = slice.cols.begin; c < slice.cols.end; ++c) {
            ++held[static_cast<size_t>(r * cols + c)];
          }
        }
      }
    }
    for (const auto& [name, held] : holders) {
      const bool whole = absl::StrContains(name, ".ln_");
      EXPECT_THAT(held, Each(whole ? ranks : 1)) << name << " on " << ranks;
    }
    EXPECT_EQ(holders.count("transformer.wpe.weight"), 1u);
  }
}

TEST(FrozenParamsTest, SectionsOfAFusedLayerAreSplitByHeads) {
  const GptConfig config = SevenFusedHeads();
  const LinearSpec linear =
      LinearsOfLayer(config, *SplitModel(config, 2), 0)[0];
  EXPECT_EQ(linear.module, "transformer.h.0.attn.c_attn");
  EXPECT_EQ(linear.sections, 3);
  EXPECT_THAT(SectionOf(linear.shard, 0, 28).split,
              ElementsAre(Range{0, 16}, Range{16, 28}));
  EXPECT_THAT(SectionOf(linear.shard, 2, 28).split,
              ElementsAre(Range{56, 72}, Range{72, 84}));
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
