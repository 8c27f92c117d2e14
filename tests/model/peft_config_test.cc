#include "model/peft_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace lorica {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::Pointee;

// As a recent PEFT writes it.
Json Recent() {
  return *ParseJson(R"({
    "alora_invocation_tokens": null, "alpha_pattern": {}, "auto_mapping": null,
    "base_model_name_or_path": "base", "bias": "none", "corda_config": null,
    "ensure_weight_tying": false, "exclude_modules": null,
    "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
    "layer_replication": null, "layers_pattern": null,
    "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 16,
    "lora_bias": false, "lora_dropout": 0.1, "megatron_config": null,
    "megatron_core": "megatron.core", "modules_to_save": null,
    "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16,
    "r": 4, "rank_pattern": {}, "revision": null,
    "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
    "use_dora": false, "use_rslora": false})",
                    "f");
}

TEST(PeftConfigTest, ReadsWhatPeftWrites) {
  const auto config = PeftConfigFromJson(Recent(), "c.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->base_model, "base");
  EXPECT_EQ(config->lora.rank, 4);
  EXPECT_EQ(config->lora.alpha, 16.0);
  EXPECT_EQ(config->lora.dropout, 0.1f);
  EXPECT_EQ(config->lora.scaling, LoraScaling::kStandard);
  EXPECT_THAT(config->lora.targets, ElementsAre("q_proj", "v_proj"));
  EXPECT_FALSE(config->modules_from_file);
}

TEST(PeftConfigTest, AbsentKeysHavePeftsDefaults) {
  const auto config =
      PeftConfigFromJson({{"target_modules", "all-linear"}}, "c.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->lora.rank, 8);
  EXPECT_EQ(config->lora.alpha, 8.0);
  EXPECT_EQ(config->lora.dropout, 0.0f);
  EXPECT_THAT(config->lora.targets, ElementsAre("all-linear"));
  EXPECT_FALSE(config->modules_from_file);
}

TEST(PeftConfigTest, ModulesComeFromTheFileWhereTargetsDoNotListThem) {
  for (const auto& [key, value] :
       {std::pair<const char*, Json>("target_modules", ".*\\.q_proj"),
        {"layers_to_transform", {0, 1}},
        {"exclude_modules", "lm_head"}}) {
    Json json = Recent();
    json[key] = value;
    const auto config = PeftConfigFromJson(json, "c.json");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_TRUE(config->modules_from_file) << key;
  }
}

TEST(PeftConfigTest, ReadsBackWhatItWrote) {
  const LoraConfig lora{.rank = 3,
                        .alpha = 4.5,
                        .dropout = 0.05f,
                        .scaling = LoraScaling::kRankStabilized,
                        .targets = {"q_proj", "o_proj"},
                        .rank_pattern = {{"layers.0.self_attn.q_proj", 2}},
                        .alpha_pattern = {{"o_proj", 9.0}}};
  const Json json = PeftConfigToJson(lora, "base");
  EXPECT_EQ(json.at("lora_dropout").dump(), "0.05");
  EXPECT_EQ(json.at("alpha_pattern").dump(), R"({"o_proj":9})");
  const auto config = PeftConfigFromJson(json, "c.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->lora.rank, 3);
  EXPECT_EQ(config->lora.alpha, 4.5);
  EXPECT_EQ(config->lora.dropout, 0.05f);
  EXPECT_EQ(config->lora.scaling, LoraScaling::kRankStabilized);
  EXPECT_THAT(config->lora.targets, ElementsAre("q_proj", "o_proj"));
  EXPECT_THAT(config->lora.rank_pattern,
              ElementsAre(Pair("layers.0.self_attn.q_proj", 2)));
  EXPECT_THAT(config->lora.alpha_pattern, ElementsAre(Pair("o_proj", 9.0)));
  EXPECT_EQ(config->base_model, "base");
}

TEST(PeftConfigTest, PatternsAreThoseOfPeft) {
  const std::map<std::string, int64_t> patterns = {
      {"layers\\.[01]\\..*q_proj", 2}, {"self_attn.v_proj", 3}, {"z(", 4}};
  const auto find = [&](const char* module) {
    return FindPeftPattern(patterns, module);
  };
  EXPECT_THAT(*find("model.layers.1.self_attn.q_proj"), Pointee(2));
  EXPECT_THAT(*find("model.layers.7.self_attn.v_proj"), Pointee(3));
  EXPECT_THAT(find("model.layers.2.self_attn.q_proj").status().message(),
              HasSubstr("pattern z( is not a regular"));
  EXPECT_EQ(
      *FindPeftPattern(std::map<std::string, double>{{"v", 1.0}}, "mlp.w"),
      nullptr);
}

struct Refusal {
  const char* name;
  const char* key;
  Json value;
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const Refusal& refusal) {
  return out << refusal.name;
}

class PeftConfigRefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(PeftConfigRefusalTest, NamesKeyAndValue) {
  Json json = Recent();
  json[GetParam().key] = GetParam().value;
  const auto config = PeftConfigFromJson(json, "c.json");
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(config.status().message(), HasSubstr(GetParam().message));
  EXPECT_THAT(config.status().message(), HasSubstr("c.json"));
}

const Refusal kRefusals[] = {
    {"OtherType", "peft_type", "LOHA", "peft_type is \"LOHA\""},
    {"Dora", "use_dora", true, "use_dora is true"},
    {"Bias", "bias", "lora_only", "bias is \"lora_only\""},
    {"LoraBias", "lora_bias", true, "lora_bias is true"},
    {"ModulesToSave",
     "modules_to_save",
     {"lm_head"},
     "modules_to_save is a list of 1"},
    {"FanIn", "fan_in_fan_out", "no", "fan_in_fan_out is \"no\""},
    {"LayerReplication", "layer_replication", {{0, 1}}, "layer_replication is"},
    {"Pissa", "init_lora_weights", "pissa", "init_lora_weights is \"pissa\""},
    {"Loftq", "init_lora_weights", "loftq", "init_lora_weights is \"loftq\""},
    {"Future", "from_the_future", 1, "from_the_future is 1"},
    {"NoTargets", "target_modules", nullptr, "target_modules is null"},
    {"TargetsOfNumbers", "target_modules", {1}, "list of strings"},
    {"RankOfZero", "r", 0, "r is 0"},
    {"FractionalRank", "r", 1.5, "r is 1.5"},
    {"Dropout", "lora_dropout", 1.0, "lora_dropout is 1.0"},
    {"PatternOfText", "rank_pattern", {{"q_proj", "2"}}, "q_proj is \"2\""},
};

INSTANTIATE_TEST_SUITE_P(All, PeftConfigRefusalTest,
                         ::testing::ValuesIn(kRefusals),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lorica
