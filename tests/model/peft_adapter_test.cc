#include "model/peft_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/weight_source.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::vector<float> Values(int64_t count, float first) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(first + 0.25f * static_cast<float>(i));
  }
  return values;
}

PeftFactors Factors(int64_t rank, int64_t inputs, int64_t outputs) {
  return {rank, inputs, outputs, Values(rank * inputs, 1.0f),
          Values(outputs * rank, -1.0f)};
}

PeftAdapter Tiny() {
  return {.lora = {.rank = 2, .alpha = 4.0, .targets = {"q_proj", "v_proj"}},
          .base_model = "base",
          .modules = {{"model.layers.0.self_attn.q_proj", Factors(2, 4, 6)},
                      {"model.layers.0.self_attn.v_proj", Factors(2, 4, 3)}}};
}

class PeftAdapterTest : public ::testing::Test {
 protected:
  PeftAdapterTest() { EXPECT_TRUE(WritePeftAdapter(dir_ / "a", Tiny()).ok()); }

  void ChangeConfig(const char* key, const Json& value) {
    Json json = *ReadJsonFile(dir_ / "a/adapter_config.json");
    json[key] = value;
    WriteBytes(dir_ / "a/adapter_config.json", json.dump());
  }
  // One tensor of the type beside an A, or whatever `names` says.
  void WriteTensors(const std::vector<SafetensorsData>& tensors) {
    ASSERT_TRUE(WriteSafetensors(dir_ / "a/adapter_model.safetensors", tensors,
                                 {{"format", "pt"}})
                    .ok());
  }
  std::string Error() {
    return std::string(ReadPeftAdapter(dir_ / "a").status().message());
  }

  TempDirectory dir_;
};

const char kQA[] =
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const char kQB[] =
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

TEST_F(PeftAdapterTest, ReadsBackWhatItWrote) {
  const auto adapter = ReadPeftAdapter(dir_ / "a");
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ(adapter->lora.rank, 2);
  EXPECT_EQ(adapter->lora.alpha, 4.0);
  EXPECT_THAT(adapter->lora.targets, ElementsAre("q_proj", "v_proj"));
  EXPECT_EQ(adapter->base_model, "base");
  const PeftAdapter tiny = Tiny();
  ASSERT_EQ(adapter->modules.size(), 2u);
  for (const auto& [module, factors] : tiny.modules) {
    const PeftFactors& read = adapter->modules.at(module);
    EXPECT_EQ(read.rank, factors.rank);
    EXPECT_EQ(read.inputs, factors.inputs);
    EXPECT_EQ(read.outputs, factors.outputs);
    EXPECT_EQ(read.a, factors.a);
    EXPECT_EQ(read.b, factors.b);
  }
}

TEST_F(PeftAdapterTest, WritesPeftsKeysAndMetadata) {
  const auto file = ReadSafetensors(dir_ / "a/adapter_model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->metadata, ElementsAre(Pair("format", "pt")));
  EXPECT_EQ(file->tensors.size(), 4u);
  EXPECT_THAT(file->tensors.at(kQA).shape, ElementsAre(2, 4));
  EXPECT_THAT(file->tensors.at(kQB).shape, ElementsAre(6, 2));
}

TEST_F(PeftAdapterTest, ReadsTheShortTypes) {
  // 1.5 and -2 in BF16, then in F16.
  for (const auto& [type, bytes] :
       {std::pair(StoredType::kBF16, std::string("\xc0\x3f\x00\xc0", 4)),
        std::pair(StoredType::kF16, std::string("\x00\x3e\x00\xc0", 4))}) {
    WriteTensors({{{kQA, type, {1, 2}}, bytes}, {{kQB, type, {2, 1}}, bytes}});
    ChangeConfig("r", 1);
    const auto adapter = ReadPeftAdapter(dir_ / "a");
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    const PeftFactors& factors =
        adapter->modules.at("model.layers.0.self_attn.q_proj");
    EXPECT_THAT(factors.a, ElementsAre(1.5f, -2.0f));
    EXPECT_THAT(factors.b, ElementsAre(1.5f, -2.0f));
  }
}

TEST_F(PeftAdapterTest, PatternsBecomeOneEntryAModule) {
  PeftAdapter adapter = Tiny();
  adapter.modules["model.layers.0.self_attn.v_proj"] = Factors(3, 4, 3);
  ASSERT_TRUE(WritePeftAdapter(dir_ / "a", adapter).ok());
  EXPECT_THAT(Error(), HasSubstr("v_proj.lora_A.weight has rank 3; "
                                 "adapter_config.json makes it 2"));
  ChangeConfig("rank_pattern", {{"layers\\.0\\..*v_proj", 3}, {"up_proj", 5}});
  ChangeConfig("alpha_pattern", {{"self_attn.q_proj", 7.5}});
  const auto read = ReadPeftAdapter(dir_ / "a");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->lora.rank_pattern,
              ElementsAre(Pair("model.layers.0.self_attn.v_proj", 3)));
  EXPECT_THAT(read->lora.alpha_pattern,
              ElementsAre(Pair("model.layers.0.self_attn.q_proj", 7.5)));
}

TEST_F(PeftAdapterTest, ARegularExpressionBecomesTheModulesFound) {
  ChangeConfig("target_modules", ".*self_attn.(q|v)_proj");
  const auto adapter = ReadPeftAdapter(dir_ / "a");
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_THAT(adapter->lora.targets,
              ElementsAre("model.layers.0.self_attn.q_proj",
                          "model.layers.0.self_attn.v_proj"));
}

TEST_F(PeftAdapterTest, ErrorsNameTheTensor) {
  const std::string bytes(8, '\0');
  WriteTensors({{{kQA, StoredType::kF32, {1, 2}}, bytes}});
  EXPECT_THAT(Error(), HasSubstr(absl::StrCat("tensor ", kQB, " is missing")));
  WriteTensors({{{kQB, StoredType::kF32, {1, 2}}, bytes}});
  EXPECT_THAT(Error(), HasSubstr(absl::StrCat("tensor ", kQA, " is missing")));
  WriteTensors({{{"lm_head.weight", StoredType::kF32, {1, 2}}, bytes}});
  EXPECT_THAT(Error(), HasSubstr("tensor lm_head.weight is neither"));
  WriteTensors({{{kQA, StoredType::kF32, {1, 2}}, bytes},
                {{kQB, StoredType::kF32, {1, 2}}, bytes}});
  EXPECT_THAT(Error(), HasSubstr("the ranks differ"));
  WriteTensors({{{kQA, StoredType::kF32, {2}}, bytes},
                {{kQB, StoredType::kF32, {1, 2}}, bytes}});
  EXPECT_THAT(Error(), HasSubstr("is [2]; a matrix is needed"));
  WriteTensors({{{kQA, StoredType::kI64, {1, 1}}, bytes},
                {{kQB, StoredType::kF32, {2, 1}}, bytes}});
  EXPECT_THAT(Error(), HasSubstr("is I64; F32, BF16 and F16"));
  WriteTensors({});
  EXPECT_THAT(Error(), HasSubstr("holds no tensor"));
  ASSERT_TRUE(WritePeftAdapter(dir_ / "a", Tiny()).ok());
  ChangeConfig("target_modules", {"q_proj"});
  EXPECT_THAT(Error(), HasSubstr("v_proj.lora_A.weight is unexpected: "
                                 "target_modules are q_proj"));
  std::filesystem::remove(dir_ / "a/adapter_model.safetensors");
  EXPECT_THAT(Error(), HasSubstr("adapter_model.safetensors: No such file"));
}

TEST(PeftGoldenTest, GoldenAdaptersFitTheirModels) {
  for (const char* model :
       {"heads_5_5_untied", "heads_9_3_tied_sharded", "heads_4_2_rope_llama3",
        "heads_6_2_biased_qwen2", "heads_7_gpt2"}) {
    const std::string folder = absl::StrCat("tests/golden/", model);
    const auto source = WeightSource::Open(folder + "/model");
    ASSERT_TRUE(source.ok()) << source.status();
    const auto split = SplitModel(source->config(), 1);
    ASSERT_TRUE(split.ok()) << split.status();
    for (const char* name : {"/adapter_qv", "/adapter_all"}) {
      auto adapter = ReadPeftAdapter(folder + name);
      ASSERT_TRUE(adapter.ok()) << adapter.status();
      const auto modules =
          ResolveTargets(source->config(), *split, adapter->lora);
      ASSERT_TRUE(modules.ok()) << modules.status();
      EXPECT_EQ(CheckPeftAdapter(*adapter, *modules, "d"), absl::OkStatus());

      const auto last = --adapter->modules.end();
      const std::pair<std::string, PeftFactors> kept = *last;
      adapter->modules.erase(last);
      EXPECT_THAT(CheckPeftAdapter(*adapter, *modules, "d").message(),
                  HasSubstr(kept.first + ".lora_A.weight is missing"));
      adapter->modules.insert(kept).first->second.inputs += 1;
      EXPECT_THAT(CheckPeftAdapter(*adapter, *modules, "d").message(),
                  HasSubstr("adapt a weight of"));
      adapter->modules.at(kept.first).inputs -= 1;
      adapter->modules["model.layers.9.mlp.up_proj"] = {};
      EXPECT_THAT(CheckPeftAdapter(*adapter, *modules, "d").message(),
                  HasSubstr("layers.9.mlp.up_proj.lora_A.weight adapts"));
      const bool gpt2 = source->config().family == Family::kGpt2;
      EXPECT_EQ(adapter->lora.fan_in_fan_out, gpt2);
      if (gpt2) continue;
      adapter->lora.fan_in_fan_out = true;
      EXPECT_THAT(CheckPeftAdapter(*adapter, *modules, "d").message(),
                  HasSubstr("d/adapter_config.json: fan_in_fan_out is true"));
    }
  }
}

TEST(PeftGoldenTest, WritesTheTensorsOfPeftByteForByte) {
  const TempDirectory dir;
  const std::string golden = "tests/golden/heads_5_5_untied/adapter_all";
  const auto adapter = ReadPeftAdapter(golden);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  ASSERT_TRUE(WritePeftAdapter(dir / "a", *adapter).ok());
  EXPECT_EQ(ReadBytes(dir / "a/adapter_model.safetensors"),
            ReadBytes(golden + "/adapter_model.safetensors"));
}

}  // namespace
}  // namespace lorica
