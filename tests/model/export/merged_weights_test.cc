#include "model/export/merged_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/export/adapter_algebra.h"
#include "model/export/model_files.h"
#include "model/families/llama.h"
#include "model/text/tokenizer_directory.h"
#include "model/text/tokenizer_gguf.h"
#include "model/text/tokenizer_json.h"
#include "runtime/files/block_decode.h"
#include "runtime/files/safetensors.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/golden_text.h"
#include "tests/support/random_adapter.h"
#include "tests/support/temp_directory.h"
#include "tests/support/tiny_llama.h"

namespace lorica {
namespace {

using ::testing::HasSubstr;

template <typename T>
T Value(absl::StatusOr<T> result) {
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

// The largest relative error of rounding to the type.
double UnitOf(StoredType type) {
  return type == StoredType::kF32   ? 0x1p-24
         : type == StoredType::kF16 ? 0x1p-11
                                    : 0x1p-8;
}

std::vector<float> Floats(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DecodeRow(tensor.type, tensor.bytes.data(), {0, tensor.elements()},
            values.data());
  return values;
}

const LoraConfig kLora = {.rank = 3,
                          .alpha = 4,
                          .targets = {"q_proj", "v_proj", "down_proj"},
                          .rank_pattern = {{"v_proj", 2}}};

// A tiny model on disk and an adapter of it.
class MergedWeightsTest : public testing::Test {
 protected:
  MergedWeightsTest() {
    std::filesystem::create_directory(dir_ / "model");
    tiny_.WriteDirectory(dir_ / "model", StoredType::kBF16);
    adapter_ =
        RandomAdapter(Value(LlamaFromJson(tiny_.Config(), "tiny")), kLora, 1);
  }

  // Writes into a new directory `name`.
  MergedFiles Write(const WeightSource& source, const PeftAdapter& adapter,
                    StoredType type, const std::string& name) {
    const std::string out = dir_ / name;
    std::filesystem::create_directory(out);
    const MergedWeights merged =
        Value(MergedWeights::Create(&source, &adapter, "adapter"));
    EXPECT_TRUE(
        WriteModelFiles(source.path(), source.config(), type, out).ok());
    return Value(WriteMergedWeights(out, merged, type, nullptr));
  }

  // W + s B A by definition.
  std::vector<double> Expected(const std::string& name) const {
    const std::vector<float> w = tiny_.Weights().at(name).values;
    std::vector<double> sum(w.begin(), w.end());
    const std::string module(absl::StripSuffix(name, ".weight"));
    if (adapter_.modules.count(module) == 0) return sum;
    const std::vector<double> change = ChangeOf(adapter_, module);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += change[i];
    return sum;
  }

  const TempDirectory dir_;
  const TinyLlama tiny_;
  PeftAdapter adapter_;
};

TEST_F(MergedWeightsTest, EachElementIsRoundedOnceAndTheReportSaysHowFar) {
  const WeightSource source = Value(WeightSource::Open(dir_ / "model"));
  for (const StoredType type :
       {StoredType::kF32, StoredType::kF16, StoredType::kBF16}) {
    const std::string out = absl::StrCat("out", NameOf(type));
    const MergedFiles files = Write(source, adapter_, type, out);
    const TensorTable tensors = Value(ReadSafetensorsDirectory(dir_ / out));
    EXPECT_EQ(tensors.size(), tiny_.Weights().size());
    EXPECT_EQ(files.tensors.size(), tensors.size());
    for (const MergedTensor& report : files.tensors) {
      SCOPED_TRACE(report.name);
      const StoredTensor& tensor = tensors.at(report.name);
      EXPECT_EQ(tensor.type, type);
      const std::vector<float> stored = Floats(tensor);
      const std::vector<double> expected = Expected(report.name);
      double largest = 0;
      double squares = 0;
      for (size_t i = 0; i < stored.size(); ++i) {
        const double error = std::abs(stored[i] - expected[i]);
        // Twice: once to F32, once to the type; and sums in another order.
        ASSERT_LE(error,
                  (UnitOf(type) + 0x1p-24) * std::abs(expected[i]) + 0x1p-24);
        largest = std::max(largest, error);
        squares += error * error;
      }
      EXPECT_NEAR(report.rounding.largest, largest, 1e-12);
      EXPECT_NEAR(report.rounding.rms(),
                  std::sqrt(squares / static_cast<double>(stored.size())),
                  1e-12);
      EXPECT_EQ(report.adapted, report.name.find("q_proj") < 99 ||
                                    report.name.find("v_proj") < 99 ||
                                    report.name.find("down_proj") < 99);
      if (!report.adapted && type != StoredType::kF16) {
        EXPECT_EQ(report.rounding.largest, 0);
      }
    }
    // It opens as a model, and says what its elements are.
    EXPECT_TRUE(WeightSource::Open(dir_ / out).ok());
    EXPECT_EQ(Value(ReadJsonFile(dir_ / (out + "/config.json")))["torch_dtype"],
              type == StoredType::kF32   ? "float32"
              : type == StoredType::kF16 ? "float16"
                                         : "bfloat16");
  }
}

TEST_F(MergedWeightsTest, AGgufMergesAsTheDirectoryItCameFrom) {
  GgufBuilder builder;
  tiny_.AddGgufValues(&builder);
  tiny_.AddGgufWeights(StoredType::kBF16, &builder);
  WriteBytes(dir_ / "model.gguf", builder.Build());
  Write(Value(WeightSource::Open(dir_ / "model")), adapter_, StoredType::kF32,
        "directory");
  Write(Value(WeightSource::Open(dir_ / "model.gguf")), adapter_,
        StoredType::kF32, "gguf");
  EXPECT_EQ(ReadBytes(dir_ / "gguf/model.safetensors"),
            ReadBytes(dir_ / "directory/model.safetensors"));
  EXPECT_TRUE(WeightSource::Open(dir_ / "gguf").ok());
}

TEST_F(MergedWeightsTest, SubtractingGivesTheModelBack) {
  const WeightSource source = Value(WeightSource::Open(dir_ / "model"));
  Write(source, adapter_, StoredType::kF32, "merged");
  const WeightSource merged = Value(WeightSource::Open(dir_ / "merged"));
  const PeftAdapter negated = Negated(adapter_);
  const MergedWeights back =
      Value(MergedWeights::Create(&merged, &negated, "adapter"));
  const MergedWeights original =
      Value(MergedWeights::Create(&source, nullptr, ""));
  std::filesystem::create_directory(dir_ / "back");
  const MergedFiles files = Value(
      WriteMergedWeights(dir_ / "back", back, StoredType::kF32, &original));
  for (const MergedTensor& tensor : files.tensors) {
    ASSERT_TRUE(tensor.against_expected.has_value());
    // Two roundings of numbers below 8: see kLora and RandomAdapter.
    EXPECT_LE(tensor.against_expected->largest, 2 * 8 * 0x1p-24);
    EXPECT_EQ(tensor.against_expected->largest > 0, tensor.adapted);
  }
  // In the type of the source, nothing of the adapter is left.
  std::filesystem::create_directory(dir_ / "bf16");
  Value(WriteMergedWeights(dir_ / "bf16", back, StoredType::kBF16, &original));
  EXPECT_EQ(ReadBytes(dir_ / "bf16/model.safetensors"),
            ReadBytes(dir_ / "model/model.safetensors"));
}

TEST_F(MergedWeightsTest, AModelInSeveralFilesStaysInThem) {
  const std::string golden = "tests/golden/heads_9_3_tied_sharded/";
  const WeightSource source = Value(WeightSource::Open(golden + "model"));
  const PeftAdapter adapter = Value(ReadPeftAdapter(golden + "adapter_all"));
  const MergedFiles files = Write(source, adapter, StoredType::kF32, "out");
  EXPECT_EQ(files.files,
            (std::vector<std::string>{"model-00001-of-00002.safetensors",
                                      "model-00002-of-00002.safetensors"}));
  const std::string index = "/model.safetensors.index.json";
  const Json ours = Value(ReadJsonFile(dir_ / ("out" + index)));
  const Json theirs = Value(ReadJsonFile(golden + "model" + index));
  EXPECT_EQ(ours["weight_map"], theirs["weight_map"]);
  EXPECT_EQ(ours["metadata"]["total_size"], files.bytes);
  const WeightSource again = Value(WeightSource::Open(dir_ / "out"));
  EXPECT_TRUE(again.config().tied_head);
  EXPECT_EQ(again.weights().count("lm_head.weight"), 0u);
}

// A file of [I, O] stays one: W + s (B A)' by definition.
TEST_F(MergedWeightsTest, AGpt2KeepsTheOrderOfItsFile) {
  const std::string golden = "tests/golden/heads_7_gpt2/";
  const WeightSource source = Value(WeightSource::Open(golden + "model"));
  const PeftAdapter adapter = Value(ReadPeftAdapter(golden + "adapter_all"));
  Write(source, adapter, StoredType::kF32, "out");
  const TensorTable before = Value(ReadSafetensorsDirectory(golden + "model"));
  const TensorTable after = Value(ReadSafetensorsDirectory(dir_ / "out"));
  for (const auto& [module, factors] : adapter.modules) {
    const StoredTensor& tensor = after.at(module + ".weight");
    ASSERT_EQ(tensor.shape,
              (std::vector<int64_t>{factors.inputs, factors.outputs}));
    const std::vector<float> stored = Floats(tensor);
    const std::vector<float> base = Floats(before.at(
        std::string(absl::StripPrefix(module, "transformer.")) + ".weight"));
    const std::vector<double> change = ChangeOf(adapter, module);
    for (int64_t i = 0; i < factors.inputs; ++i) {
      for (int64_t o = 0; o < factors.outputs; ++o) {
        const auto at = static_cast<size_t>(i * factors.outputs + o);
        const auto in_change = static_cast<size_t>(o * factors.inputs + i);
        ASSERT_FLOAT_EQ(stored[at],
                        static_cast<float>(base[at] + change[in_change]))
            << module;
      }
    }
  }
  EXPECT_EQ(Value(WeightSource::Open(dir_ / "out")).config().hidden_size, 28);
}

TEST_F(MergedWeightsTest, AValueThatF16CannotHoldIsRefusedByName) {
  const WeightSource source = Value(WeightSource::Open(dir_ / "model"));
  adapter_.modules.at("model.layers.1.mlp.down_proj").b[0] = 1e6f;
  const MergedWeights merged =
      Value(MergedWeights::Create(&source, &adapter_, "adapter"));
  EXPECT_THAT(WriteMergedWeights(dir_.path(), merged, StoredType::kF16, nullptr)
                  .status()
                  .message(),
              HasSubstr("model.layers.1.mlp.down_proj.weight has a value of "));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "model.safetensors"));
}

TEST_F(MergedWeightsTest, AnAdapterOfAnotherModelIsRefused) {
  const WeightSource source = Value(WeightSource::Open(dir_ / "model"));
  const PeftAdapter other =
      Value(ReadPeftAdapter("tests/golden/heads_9_3_tied_sharded/adapter_qv"));
  const absl::Status status =
      MergedWeights::Create(&source, &other, "there").status();
  EXPECT_THAT(status.message(), HasSubstr("there/adapter_model.safetensors"));
}

TEST(ModelFilesTest, ConfigOfAGgufReadsAsTheSameModel) {
  const TempDirectory dir;
  const TinyLlama tiny{.tied = true};
  GgufBuilder builder;
  tiny.AddGgufValues(&builder);
  builder.F32("llama.rope.freq_base", 5e5f);
  builder.String("llama.rope.scaling.type", "linear");
  builder.F32("llama.rope.scaling.factor", 4);
  tiny.AddGgufWeights(StoredType::kF32, &builder);
  WriteBytes(dir / "model.gguf", builder.Build());
  const GgufFile file = Value(GgufFile::Open(dir / "model.gguf"));
  const GptConfig config = Value(LlamaFromGguf(file));
  const GptConfig again = Value(LlamaFromJson(
      Value(ConfigJsonOf(file, config, StoredType::kBF16)), "config.json"));
  EXPECT_EQ(again.rope.inv_freq, config.rope.inv_freq);
  EXPECT_EQ(again.norm_epsilon, config.norm_epsilon);
  EXPECT_EQ(again.max_positions, config.max_positions);
  EXPECT_EQ(again.num_kv_heads, config.num_kv_heads);
  EXPECT_TRUE(again.tied_head);
}

TEST(ModelFilesTest, ATableOfRotaryDivisorsIsRefused) {
  const TempDirectory dir;
  const TinyLlama tiny;
  GgufBuilder builder;
  tiny.AddGgufValues(&builder);
  tiny.AddGgufWeights(StoredType::kF32, &builder);
  builder.Tensor("rope_freqs.weight", StoredType::kF32, {4},
                 TinyLlama::BytesAs(StoredType::kF32, {1, 2, 4, 8}));
  WriteBytes(dir / "model.gguf", builder.Build());
  const GgufFile file = Value(GgufFile::Open(dir / "model.gguf"));
  EXPECT_THAT(ConfigJsonOf(file, Value(LlamaFromGguf(file)), StoredType::kF32)
                  .status()
                  .message(),
              HasSubstr("rope_freqs.weight"));
}

class TokenizerFilesTest : public testing::TestWithParam<const char*> {};

// Read back, the tokenizer is the one that was written: it encodes and decodes
// what the original does.
TEST_P(TokenizerFilesTest, AnotherReadingEncodesAlike) {
  const TokenizerData data = GoldenTokenizerData(GetParam());
  TokenizerData again = Value(
      ParseTokenizerJson(Json::parse(TokenizerJsonOf(data).dump()), "again"));
  EXPECT_EQ(again.tokens, data.tokens);
  EXPECT_EQ(again.merges, data.merges);
  EXPECT_EQ(again.prefix, data.prefix);
  EXPECT_EQ(again.suffix, data.suffix);
  EXPECT_EQ(again.ignore_merges, data.ignore_merges);
  const Tokenizer ours = MakeTokenizer(std::move(again));
  const Json cases =
      ReadGolden(absl::StrCat("tokenizers/", GetParam(), "_expected.json"));
  ASSERT_FALSE(cases.empty());
  for (const Json& item : cases) {
    EXPECT_EQ(Value(ours.Encode(item["text"].get<std::string>(),
                                SpecialTokens::kInclude)),
              item["ids"].get<std::vector<int32_t>>());
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, TokenizerFilesTest,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2"),
                         [](const auto& tested) {
                           return std::string(tested.param);
                         });

TEST(ModelFilesTest, ADirectoryOfAGgufHasItsTokenizer) {
  const TempDirectory dir;
  const std::string gguf = "tests/golden/tiny_text/model.gguf";
  const WeightSource source = Value(WeightSource::Open(gguf));
  ASSERT_TRUE(
      WriteModelFiles(gguf, source.config(), StoredType::kF32, dir.path())
          .ok());
  const TokenizerData data =
      Value(TokenizerFromGguf(Value(GgufFile::Open(gguf))));
  const TokenizerData again = Value(ReadTokenizerDirectory(dir.path()));
  EXPECT_EQ(again.tokens, data.tokens);
  EXPECT_EQ(again.merges, data.merges);
  EXPECT_EQ(again.eos, data.eos);
  EXPECT_EQ(again.bos, data.bos);
  EXPECT_EQ(again.pad, data.pad);
  EXPECT_EQ(again.chat_template, data.chat_template);
  EXPECT_EQ(again.added_tokens.size(), data.added_tokens.size());
}

}  // namespace
}  // namespace lorica
