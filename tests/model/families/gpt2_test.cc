#include "model/families/gpt2.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/params.h"
#include "model/weight_source.h"
#include "runtime/device.h"
#include "runtime/files/safetensors.h"
#include "tests/support/golden.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/heads_7_gpt2/model";

Json GoldenConfig() {
  auto json = ReadJsonFile(absl::StrCat(kModel, "/config.json"));
  CHECK(json.ok()) << json.status();
  return *std::move(json);
}

TEST(Gpt2JsonTest, ReadsEveryField) {
  ASSERT_TRUE(IsGpt2(GoldenConfig()));
  const auto config = Gpt2FromJson(GoldenConfig(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "GPT2LMHeadModel");
  EXPECT_EQ(config->vocab_size, 103);
  EXPECT_EQ(config->hidden_size, 28);
  EXPECT_EQ(config->num_layers, 2);
  EXPECT_EQ(config->num_heads, 7);
  EXPECT_EQ(config->num_kv_heads, 7);
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_EQ(config->intermediate_size, 51);
  EXPECT_EQ(config->max_positions, 24);
  EXPECT_EQ(config->norm_epsilon, 1e-5f);
  EXPECT_TRUE(config->tied_head);
}

TEST(Gpt2JsonTest, AbsentAndNullFieldsMeanWhatTransformersMakesOfThem) {
  Json json = GoldenConfig();
  json["n_inner"] = nullptr;
  for (const char* name : {"architectures", "activation_function",
                           "layer_norm_epsilon", "scale_attn_weights"}) {
    json.erase(name);
  }
  json["tie_word_embeddings"] = false;
  ASSERT_TRUE(IsGpt2(json));
  const auto config = Gpt2FromJson(json, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->intermediate_size, 4 * 28);
  EXPECT_EQ(config->norm_epsilon, 1e-5f);
  EXPECT_FALSE(config->tied_head);
  json["architectures"] = {"GPT2ForSequenceClassification"};
  EXPECT_FALSE(IsGpt2(json));
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

class Gpt2RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(Gpt2RefusalTest, NamesKeyAndValue) {
  Json json = GoldenConfig();
  json[GetParam().key] = GetParam().value;
  const auto config = Gpt2FromJson(json, "config.json");
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(config.status().message(), HasSubstr("config.json"));
  EXPECT_THAT(config.status().message(), HasSubstr(GetParam().message));
}

const Refusal kRefusals[] = {
    {"InverseLayer", "scale_attn_by_inverse_layer_idx", true,
     "scale_attn_by_inverse_layer_idx is true; only false"},
    {"Upcast", "reorder_and_upcast_attn", true,
     "reorder_and_upcast_attn is true"},
    {"Cross", "add_cross_attention", true, "add_cross_attention is true"},
    {"Unscaled", "scale_attn_weights", false,
     "scale_attn_weights is false; only true"},
    {"Activation", "activation_function", "relu",
     "activation_function is \"relu\""},
    {"Quantized", "quantization_config", {{"bits", 4}}, "quantization_config"},
    {"HeadsThatDoNotDivide", "n_head", 5, "n_embd is 28 and n_head 5"},
    {"OddHeads", "n_head", 4, "head_dim is 7"},
    {"NoHeads", "n_head", 0, "n_head 0"},
    {"NoLayers", "n_layer", 0, "num_hidden_layers is 0"},
    {"HugeWidth", "n_embd", 7 * (int64_t{1} << 59), "are possible"},
    {"TextForSize", "n_embd", "28", "n_embd is \"28\""},
    {"NoPositions", "n_positions", nullptr, "n_positions is missing"},
};

INSTANTIATE_TEST_SUITE_P(All, Gpt2RefusalTest, ::testing::ValuesIn(kRefusals),
                         [](const auto& test) { return test.param.name; });

TEST(Gpt2WeightsTest, NamesAreThoseOfTheModelWithItsHead) {
  EXPECT_EQ(Gpt2NameOf("h.0.attn.c_attn.weight"),
            "transformer.h.0.attn.c_attn.weight");
  EXPECT_EQ(Gpt2NameOf("transformer.h.0.attn.c_attn.bias"),
            "transformer.h.0.attn.c_attn.bias");
  EXPECT_EQ(Gpt2NameOf("lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(Gpt2NameOf("h.0.attn.bias"), "");
  EXPECT_EQ(Gpt2NameOf("transformer.h.0.attn.masked_bias"), "");
}

// The element of a weight [O, I], or of a vector, that its file holds.
float Stored(const std::vector<float>& file, const ParamSpec& param,
             int64_t row, int64_t col) {
  const Shape& shape = param.shape;
  const int64_t at = shape.rank() == 1 ? col
                     : param.file_order == FileOrder::kTransposed
                         ? col * shape[0] + row
                         : row * shape[1] + col;
  return file[static_cast<size_t>(at)];
}

TEST(Gpt2WeightsTest, SlicesAreThoseOfTheTransposedFile) {
  const auto source = WeightSource::Open(kModel);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto file = ReadSafetensorsDirectory(kModel);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto device = OpenCpuDevice({.threads = 2});
  const std::string prefix = "transformer.";
  for (const int ranks : {1, 3}) {
    const ModelSplit split = *SplitModel(source->config(), ranks);
    for (const ParamSpec& param : FrozenParams(source->config(), split)) {
      SCOPED_TRACE(param.name);
      const std::vector<float> whole =
          FloatsOf(*file, param.name.substr(prefix.size()));
      const Slice slice = SliceOf(param.shard, param.shape, ranks - 1);
      if (slice.cols.size() == 0) continue;  // A bias of the first rank's.
      std::vector<float> expected;
      std::vector<float> rounded;
      for (int64_t r = slice.rows.begin; r < slice.rows.end; ++r) {
        for (int64_t c = slice.cols.begin; c < slice.cols.end; ++c) {
          expected.push_back(Stored(whole, param, r, c));
          rounded.push_back(static_cast<float>(BFloat16(expected.back())));
        }
      }
      const auto load = [&](DType dtype) {
        return source->Load(param.name, slice, dtype, device.get()).ToFloats();
      };
      EXPECT_EQ(load(DType::kF32), expected);
      EXPECT_EQ(load(DType::kBF16), rounded);
    }
  }
}

TEST(Gpt2WeightsTest, AFileOfTheWholeModelIsTheSame) {
  const TempDirectory dir;
  WriteBytes(dir / "config.json", GoldenConfig().dump());
  const auto file = ReadSafetensorsDirectory(kModel);
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<SafetensorsData> data;
  for (const auto& [name, tensor] : *file) {
    data.push_back(
        {{"transformer." + name, tensor.type, tensor.shape}, tensor.bytes});
  }
  ASSERT_TRUE(WriteSafetensors(dir / "model.safetensors", data, {}).ok());
  const auto source = WeightSource::Open(dir.path());
  ASSERT_TRUE(source.ok()) << source.status();
  const auto bare = WeightSource::Open(kModel);
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_EQ(source->weights().size(), bare->weights().size());
  // A shape is told as the file has it.
  for (SafetensorsData& tensor : data) {
    if (tensor.entry.shape == std::vector<int64_t>{28, 84}) {
      tensor.entry.shape = {84, 28};
    }
  }
  ASSERT_TRUE(WriteSafetensors(dir / "model.safetensors", data, {}).ok());
  EXPECT_THAT(WeightSource::Open(dir.path()).status().message(),
              HasSubstr("transformer.h.0.attn.c_attn.weight is [84, 28]; the "
                        "model's configuration makes it [28, 84]"));
}

}  // namespace
}  // namespace lorica
