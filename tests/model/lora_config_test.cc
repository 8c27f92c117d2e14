#include "model/lora_config.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

using testing::HasSubstr;

GptConfig TwoLayers() {
  GptConfig config = {.vocab_size = 50,
                      .hidden_size = 32,
                      .num_layers = 2,
                      .num_heads = 4,
                      .num_kv_heads = 2,
                      .head_dim = 8,
                      .intermediate_size = 48,
                      .max_positions = 16};
  config.rope.inv_freq.resize(4);
  return config;
}

absl::StatusOr<std::vector<LoraModule>> Resolve(const LoraConfig& lora) {
  const GptConfig config = TwoLayers();
  return ResolveTargets(config, *SplitModel(config, 1), lora);
}

std::string ErrorOf(const LoraConfig& lora) {
  return std::string(Resolve(lora).status().message());
}

TEST(ResolveTargetsTest, ATargetIsTheEndOfAModulesPath) {
  const auto modules = Resolve({.targets = {"q_proj", "1.mlp.up_proj"}});
  ASSERT_TRUE(modules.ok());
  std::vector<std::string> names;
  for (const LoraModule& m : *modules) names.push_back(m.linear.module);
  EXPECT_THAT(names, testing::ElementsAre("model.layers.0.self_attn.q_proj",
                                          "model.layers.1.self_attn.q_proj",
                                          "model.layers.1.mlp.up_proj"));
}

TEST(ResolveTargetsTest, AllLinearIsEveryLayerButTheHead) {
  EXPECT_EQ(Resolve({.targets = {"all-linear"}})->size(), 14u);
}

TEST(ResolveTargetsTest, ATargetIsNoPartOfAWord) {
  EXPECT_THAT(ErrorOf({.targets = {"proj"}}), HasSubstr("\"proj\" matches no"));
}

TEST(ResolveTargetsTest, AnUnmatchedTargetListsTheNamesThereAre) {
  EXPECT_THAT(
      ErrorOf({.targets = {"q_proj", "c_attn"}}),
      HasSubstr("\"c_attn\" matches no linear layer of the model; there "
                "are q_proj, k_proj, v_proj, o_proj, gate_proj, "
                "up_proj, down_proj and all-linear"));
}

TEST(ResolveTargetsTest, ARankBeyondTheMatrixIsRefused) {
  EXPECT_THAT(
      ErrorOf({.rank = 17, .targets = {"k_proj"}}),
      HasSubstr("adapter.rank is 17; model.layers.0.self_attn.k_proj is "
                "[16, 32] and takes 1 to 16"));
  EXPECT_THAT(ErrorOf({.rank = 0, .targets = {"k_proj"}}),
              HasSubstr("adapter.rank is 0"));
}

TEST(ResolveTargetsTest, DropoutIsAProbabilityBelowOne) {
  EXPECT_THAT(ErrorOf({.dropout = 1.0f, .targets = {"k_proj"}}),
              HasSubstr("adapter.dropout is 1"));
}

TEST(ResolveTargetsTest, PatternsAreExceptionsFromRankAndAlpha) {
  const auto modules =
      Resolve({.rank = 4,
               .alpha = 8,
               .targets = {"q_proj"},
               .rank_pattern = {{"layers.1.self_attn.q_proj", 2}},
               .alpha_pattern = {{"layers.0.self_attn.q_proj", 12}}});
  ASSERT_TRUE(modules.ok());
  EXPECT_EQ((*modules)[0].rank, 4);
  EXPECT_FLOAT_EQ((*modules)[0].scale, 3.0f);
  EXPECT_EQ((*modules)[1].rank, 2);
  EXPECT_FLOAT_EQ((*modules)[1].scale, 4.0f);
}

TEST(ResolveTargetsTest, RankStabilizedScaleIsAlphaOverTheRoot) {
  const auto modules = Resolve({.rank = 4,
                                .alpha = 8,
                                .scaling = LoraScaling::kRankStabilized,
                                .targets = {"v_proj"}});
  EXPECT_FLOAT_EQ(modules->at(0).scale, 4.0f);
}

}  // namespace
}  // namespace lorica
