#include "model/families/llama.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "model/rope.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_directory.h"
#include "tests/support/tiny_llama.h"

namespace lorica {
namespace {

using ::testing::HasSubstr;

TEST(LlamaJsonTest, ReadsEveryField) {
  const auto config = LlamaFromJson(TinyLlama().Config(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocab_size, 24);
  EXPECT_EQ(config->hidden_size, 32);
  EXPECT_EQ(config->num_layers, 2);
  EXPECT_EQ(config->num_heads, 3);
  EXPECT_EQ(config->num_kv_heads, 1);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_EQ(config->intermediate_size, 40);
  EXPECT_EQ(config->max_positions, 128);
  EXPECT_EQ(config->norm_epsilon, 1e-5f);
  EXPECT_FALSE(config->tied_head);
  EXPECT_EQ(config->rope.inv_freq, MakeRope(10000.0, 8, {}).inv_freq);
}

TEST(LlamaJsonTest, AQwen2IsALlamaWithBiases) {
  Json json = TinyLlama{.qwen2 = true}.Config();
  // As its files have them.
  json["use_sliding_window"] = false;
  json["sliding_window"] = 32768;
  const auto config = LlamaFromJson(json, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "Qwen2ForCausalLM");
  EXPECT_TRUE(config->qkv_bias);
  const auto llama = LlamaFromJson(TinyLlama().Config(), "config.json");
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_FALSE(llama->qkv_bias);
  json["use_sliding_window"] = true;
  EXPECT_THAT(LlamaFromJson(json, "config.json").status().message(),
              HasSubstr("use_sliding_window is true"));
}

TEST(LlamaJsonTest, NullAndAbsentFieldsMeanWhatTransformersMakesOfThem) {
  Json json = TinyLlama{.hidden = 24}.Config();
  json["head_dim"] = nullptr;
  json["num_key_value_heads"] = nullptr;
  json.erase("rms_norm_eps");
  json["rope_scaling"] = nullptr;
  const auto config = LlamaFromJson(json, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_EQ(config->num_kv_heads, 3);
  EXPECT_EQ(config->norm_epsilon, 1e-6f);
}

TEST(LlamaJsonTest, BothStylesOfRopeAgree) {
  const RopeScaling scaling{.type = RopeScaling::Type::kLlama3,
                            .factor = 8.0,
                            .low_freq_factor = 1.0,
                            .high_freq_factor = 4.0,
                            .original_max_positions = 64.0};
  const Json object = {{"rope_type", "llama3"},
                       {"factor", 8},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 64}};
  Json four = TinyLlama().Config();
  four["rope_theta"] = 5e5;
  four["rope_scaling"] = object;
  Json five = TinyLlama().Config();
  five["rope_parameters"] = object;
  five["rope_parameters"]["rope_theta"] = 5e5;
  Json old = four;
  old["rope_scaling"].erase("rope_type");
  old["rope_scaling"]["type"] = "llama3";
  for (const Json& json : {four, five, old}) {
    const auto config = LlamaFromJson(json, "config.json");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->rope.inv_freq, MakeRope(5e5, 8, scaling).inv_freq);
  }
}

struct JsonRefusal {
  const char* name;
  const char* path;  // JSON pointer of the value changed.
  Json value;
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const JsonRefusal& refusal) {
  return out << refusal.name;
}

class LlamaJsonRefusalTest : public ::testing::TestWithParam<JsonRefusal> {};

TEST_P(LlamaJsonRefusalTest, NamesKeyAndValue) {
  Json json = TinyLlama().Config();
  json["rope_parameters"] = {{"rope_theta", 10000.0}, {"rope_type", "default"}};
  ASSERT_TRUE(LlamaFromJson(json, "config.json").ok());
  json[Json::json_pointer(GetParam().path)] = GetParam().value;
  const auto config = LlamaFromJson(json, "config.json");
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(config.status().message(), HasSubstr("config.json"));
  EXPECT_THAT(config.status().message(), HasSubstr(GetParam().message));
}

const JsonRefusal kJsonRefusals[] = {
    {"Architecture", "/architectures/0", "MistralForCausalLM",
     "[\"MistralForCausalLM\"]; only"},
    {"ModelType", "", {{"model_type", "mistral"}}, "model_type is \"mistral\""},
    {"AttentionBias", "/attention_bias", true, "attention_bias is true"},
    {"MlpBias", "/mlp_bias", true, "mlp_bias is true"},
    {"Activation", "/hidden_act", "gelu", "hidden_act is \"gelu\""},
    {"SlidingWindow", "/sliding_window", 4096, "sliding_window is 4096"},
    {"Quantized",
     "/quantization_config",
     {{"bits", 4}},
     "quantization_config is an object"},
    {"PartialRotary", "/partial_rotary_factor", 0.5,
     "partial_rotary_factor is 0.5"},
    {"Yarn", "/rope_parameters/rope_type", "yarn", "rope_type is \"yarn\""},
    {"Dynamic", "/rope_parameters/rope_type", "dynamic",
     "rope_type is \"dynamic\""},
    {"LinearWithoutFactor", "/rope_parameters/rope_type", "linear",
     "factor is missing"},
    {"RopeIsText", "/rope_parameters", "default", "an object is needed"},
    {"ThetaOfZero", "/rope_parameters/rope_theta", 0, "rope_theta is 0"},
    {"HeadsThatDoNotDivide", "/num_key_value_heads", 2,
     "3 heads do not divide over 2"},
    {"OddHeads", "/head_dim", 7, "head_dim is 7"},
    {"HugeHeads", "/head_dim", int64_t{1} << 40, "head_dim is 1099511627776"},
    {"NoHeads", "/num_attention_heads", 0, "num_attention_heads is 0"},
    {"TextForSize", "/hidden_size", "32", "hidden_size is \"32\""},
    {"NullSize", "/vocab_size", nullptr, "vocab_size is missing"},
};

INSTANTIATE_TEST_SUITE_P(All, LlamaJsonRefusalTest,
                         ::testing::ValuesIn(kJsonRefusals),
                         [](const auto& test) { return test.param.name; });

class LlamaGgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<GgufFile> Write(const GgufBuilder& builder) {
    WriteBytes(dir_ / "m.gguf", builder.Build());
    return GgufFile::Open(dir_ / "m.gguf");
  }

  TempDirectory dir_;
};

TEST_F(LlamaGgufTest, EqualsTheConfigOfTheDirectory) {
  for (const TinyLlama& tiny :
       {TinyLlama{}, TinyLlama{.tied = true}, TinyLlama{.qwen2 = true}}) {
    GgufBuilder builder;
    tiny.AddGgufValues(&builder);
    tiny.AddGgufWeights(StoredType::kF32, &builder);
    const auto file = Write(builder);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto gguf = LlamaFromGguf(*file);
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    const auto json = LlamaFromJson(tiny.Config(), "config.json");
    ASSERT_TRUE(json.ok()) << json.status();
    EXPECT_EQ(gguf->vocab_size, json->vocab_size);
    EXPECT_EQ(gguf->hidden_size, json->hidden_size);
    EXPECT_EQ(gguf->num_layers, json->num_layers);
    EXPECT_EQ(gguf->num_heads, json->num_heads);
    EXPECT_EQ(gguf->num_kv_heads, json->num_kv_heads);
    EXPECT_EQ(gguf->head_dim, json->head_dim);
    EXPECT_EQ(gguf->intermediate_size, json->intermediate_size);
    EXPECT_EQ(gguf->max_positions, json->max_positions);
    EXPECT_EQ(gguf->norm_epsilon, json->norm_epsilon);
    EXPECT_EQ(gguf->tied_head, json->tied_head);
    EXPECT_EQ(gguf->architecture, json->architecture);
    EXPECT_EQ(gguf->qkv_bias, json->qkv_bias);
    EXPECT_EQ(gguf->rope.inv_freq, json->rope.inv_freq);
  }
}

TEST_F(LlamaGgufTest, HonoursRopeScaling) {
  const TinyLlama tiny;
  GgufBuilder builder;
  tiny.AddGgufValues(&builder);
  tiny.AddGgufWeights(StoredType::kF32, &builder);
  builder.F32("llama.rope.freq_base", 5e5f);
  builder.String("llama.rope.scaling.type", "linear");
  builder.F32("llama.rope.scaling.factor", 2.0f);
  const std::vector<float> divisors = {1.0f, 1.0f, 4.0f, 32.0f};
  builder.Tensor("rope_freqs.weight", StoredType::kF32, {4},
                 TinyLlama::BytesAs(StoredType::kF32, divisors));
  const auto file = Write(builder);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto config = LlamaFromGguf(*file);
  ASSERT_TRUE(config.ok()) << config.status();
  const std::vector<float> plain = MakeRope(5e5, 8, {}).inv_freq;
  for (size_t j = 0; j < 4; ++j) {
    EXPECT_EQ(config->rope.inv_freq[j], plain[j] / 2.0f / divisors[j]);
  }
}

struct GgufRefusal {
  const char* name;
  std::function<void(GgufBuilder*)> add;
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const GgufRefusal& refusal) {
  return out << refusal.name;
}

class LlamaGgufRefusalTest : public LlamaGgufTest,
                             public ::testing::WithParamInterface<GgufRefusal> {
};

TEST_P(LlamaGgufRefusalTest, NamesFileKeyAndValue) {
  const TinyLlama tiny;
  GgufBuilder builder;
  GetParam().add(&builder);
  tiny.AddGgufWeights(StoredType::kF32, &builder);
  const auto file = Write(builder);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto config = LlamaFromGguf(*file);
  const absl::Status status = config.ok()
                                  ? LlamaWeightsOfGguf(*file, *config).status()
                                  : config.status();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr(dir_ / "m.gguf"));
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
}

// A complete model, and something besides.
GgufRefusal Also(const char* name, std::function<void(GgufBuilder*)> add,
                 const char* message) {
  return {name,
          [add](GgufBuilder* builder) {
            TinyLlama().AddGgufValues(builder);
            add(builder);
          },
          message};
}

const GgufRefusal kGgufRefusals[] = {
    {"NoValues", [](GgufBuilder*) {}, "general.architecture is missing"},
    {"Architecture",
     [](GgufBuilder* b) { b->String("general.architecture", "gpt2"); },
     "general.architecture is \"gpt2\""},
    {"OddHead",
     [](GgufBuilder* b) { TinyLlama{.head_dim = 7}.AddGgufValues(b); },
     "head_dim is 7"},
    {"NoLayers",
     [](GgufBuilder* b) { TinyLlama{.layers = 0}.AddGgufValues(b); },
     "num_hidden_layers is 0"},
    Also(
        "Experts", [](GgufBuilder* b) { b->U32("llama.expert_count", 8); },
        "llama.expert_count is 8"),
    Also(
        "Yarn",
        [](GgufBuilder* b) { b->String("llama.rope.scaling.type", "yarn"); },
        "llama.rope.scaling.type is \"yarn\""),
    Also(
        "NegativeFactor",
        [](GgufBuilder* b) { b->F32("llama.rope.scale_linear", -1.0f); },
        "must be positive"),
    Also(
        "MisshapedDivisors",
        [](GgufBuilder* b) {
          b->Tensor("rope_freqs.weight", StoredType::kF32, {2}, "01234567");
        },
        "rope_freqs.weight is F32 [2]; F32 [4] is needed"),
    Also(
        "UnknownTensor",
        [](GgufBuilder* b) {
          b->Tensor("blk.0.attn_q_norm.weight", StoredType::kF32, {1}, "0123");
        },
        "tensor blk.0.attn_q_norm.weight is not part"),
};

INSTANTIATE_TEST_SUITE_P(All, LlamaGgufRefusalTest,
                         ::testing::ValuesIn(kGgufRefusals),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lorica
