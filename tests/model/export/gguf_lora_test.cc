#include "model/export/gguf_lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/export/adapter_algebra.h"
#include "model/families/llama.h"
#include "model/weight_source.h"
#include "runtime/files/block_decode.h"
#include "runtime/files/gguf.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/random_adapter.h"
#include "tests/support/temp_directory.h"
#include "tests/support/tiny_llama.h"
#include "tests/support/tolerance.h"

namespace lorica {
namespace {

using ::testing::HasSubstr;

GptConfig TinyConfig() {
  const auto config = LlamaFromJson(TinyLlama().Config(), "tiny");
  CHECK(config.ok()) << config.status();
  return *config;
}

std::vector<float> Floats(const GgufFile& file, const std::string& name) {
  const StoredTensor& tensor = file.tensors().at(name);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DecodeRow(tensor.type, tensor.bytes.data(), {0, tensor.elements()},
            values.data());
  return values;
}

// What llama.cpp adds to the weight of a GGUF, alpha / R B A, [O, I], with the
// rows of q and k put back into Hugging Face's order by the converters' words:
// a head's rows, as [half, 2], are the transposed of [2, half].
std::vector<double> ChangeInGguf(const GgufFile& file,
                                 const std::string& module, int64_t head_dim) {
  const std::string name = TinyLlama::GgufName(absl::StrCat(module, ".weight"));
  const std::vector<float> a = Floats(file, name + ".lora_a");
  const std::vector<float> b = Floats(file, name + ".lora_b");
  const int64_t rank = file.tensors().at(name + ".lora_a").shape[0];
  const int64_t inputs = file.tensors().at(name + ".lora_a").shape[1];
  const int64_t outputs = file.tensors().at(name + ".lora_b").shape[0];
  EXPECT_EQ(file.tensors().at(name + ".lora_b").shape[1], rank);
  double alpha = 0;
  EXPECT_TRUE(file.Require("adapter.lora.alpha", &alpha).ok());
  const bool rope =
      absl::EndsWith(module, "q_proj") || absl::EndsWith(module, "k_proj");
  std::vector<double> change;
  for (int64_t o = 0; o < outputs; ++o) {
    const int64_t within = o % head_dim;
    const int64_t half = head_dim / 2;
    const int64_t row =
        rope ? o - within + within % half * 2 + within / half : o;
    for (int64_t i = 0; i < inputs; ++i) {
      double sum = 0;
      for (int64_t r = 0; r < rank; ++r) {
        sum += double{b[static_cast<size_t>(row * rank + r)]} *
               a[static_cast<size_t>(r * inputs + i)];
      }
      change.push_back(alpha / static_cast<double>(rank) * sum);
    }
  }
  return change;
}

// Rounding of alpha and of the ratio in B to F32: each relative.
void ExpectSameChange(const std::vector<double>& x,
                      const std::vector<double>& y, int64_t rank,
                      DType stored) {
  ASSERT_EQ(x.size(), y.size());
  double largest = 0;
  for (const double value : y) largest = std::max(largest, std::abs(value));
  const double bound =
      4 * UnitRoundoff(stored) * static_cast<double>(rank) * largest;
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], bound) << i;
}

struct Case {
  const char* name;
  LoraConfig lora;
  double alpha;  // The file's.
  StoredType type = StoredType::kF32;
};

std::vector<Case> Cases() {
  const LoraConfig all = {.rank = 4, .alpha = 6, .targets = {"all-linear"}};
  LoraConfig stabilized = all;
  stabilized.scaling = LoraScaling::kRankStabilized;
  LoraConfig ranks = all;
  ranks.rank_pattern = {{"k_proj", 2}, {"layers.1.mlp.up_proj", 7}};
  LoraConfig alphas = all;
  alphas.alpha_pattern = {{"q_proj", 10}, {"layers.0.mlp.down_proj", -1}};
  LoraConfig everything = ranks;
  everything.scaling = LoraScaling::kRankStabilized;
  everything.alpha_pattern = alphas.alpha_pattern;
  return {{"standard", all, 6},
          {"stabilized", stabilized, 6 * 2},
          {"rank_pattern", ranks, 6},
          {"alpha_pattern", alphas, 6},
          {"all_at_once", everything, 6 * 2},
          {"f16", all, 6, StoredType::kF16},
          {"bf16", all, 6, StoredType::kBF16}};
}

class GgufLoraTest : public testing::TestWithParam<Case> {};

TEST_P(GgufLoraTest, LlamaCppAddsTheSameChange) {
  const TempDirectory dir;
  const Case& param = GetParam();
  const GptConfig config = TinyConfig();
  const PeftAdapter adapter = RandomAdapter(config, param.lora, 1);
  ASSERT_TRUE(
      WriteGgufLora(dir / "lora.gguf", adapter, config, param.type).ok());
  const auto file = GgufFile::Open(dir / "lora.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  double alpha = 0;
  ASSERT_TRUE(file->Require("adapter.lora.alpha", &alpha).ok());
  EXPECT_NEAR(alpha, param.alpha, 1e-6);
  EXPECT_EQ(file->tensors().size(), 2 * adapter.modules.size());
  const DType stored =
      param.type == StoredType::kF32 ? DType::kF32 : DType::kBF16;
  for (const auto& [module, factors] : adapter.modules) {
    SCOPED_TRACE(module);
    ExpectSameChange(ChangeInGguf(*file, module, config.head_dim),
                     ChangeOf(adapter, module), factors.rank, stored);
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, GgufLoraTest, testing::ValuesIn(Cases()),
                         [](const auto& tested) {
                           return std::string(tested.param.name);
                         });

// llama.cpp takes an alpha of 0 for "do not scale".
TEST(GgufLoraFileTest, AnAdapterOfNoEffectHasNone) {
  const TempDirectory dir;
  const GptConfig config = TinyConfig();
  const PeftAdapter adapter =
      RandomAdapter(config, {.rank = 2, .alpha = 0, .targets = {"q_proj"}}, 1);
  ASSERT_TRUE(
      WriteGgufLora(dir / "lora.gguf", adapter, config, StoredType::kF32).ok());
  const auto file = GgufFile::Open(dir / "lora.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  double alpha = 0;
  ASSERT_TRUE(file->Require("adapter.lora.alpha", &alpha).ok());
  EXPECT_NE(alpha, 0);
  for (const float b : Floats(*file, "blk.0.attn_q.weight.lora_b")) {
    EXPECT_EQ(b, 0);
  }
}

// Its rows stay as they are: no position turns them.
TEST(GgufLoraFileTest, AGpt2sFactorsLieUnderTheNamesOfItsLayers) {
  const TempDirectory dir;
  const std::string golden = "tests/golden/heads_7_gpt2/";
  const auto source = WeightSource::Open(golden + "model");
  ASSERT_TRUE(source.ok()) << source.status();
  const auto adapter = ReadPeftAdapter(golden + "adapter_all");
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  ASSERT_TRUE(WriteGgufLora(dir / "lora.gguf", *adapter, source->config(),
                            StoredType::kF32)
                  .ok());
  const auto file = GgufFile::Open(dir / "lora.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  std::string architecture;
  ASSERT_TRUE(file->Require("general.architecture", &architecture).ok());
  EXPECT_EQ(architecture, "gpt2");
  EXPECT_EQ(file->tensors().size(), 2 * adapter->modules.size());
  const std::pair<const char*, const char*> names[] = {
      {"attn.c_attn", "attn_qkv"},
      {"attn.c_proj", "attn_output"},
      {"mlp.c_fc", "ffn_up"},
      {"mlp.c_proj", "ffn_down"}};
  for (const auto& [ours, theirs] : names) {
    const PeftFactors& factors =
        adapter->modules.at(absl::StrCat("transformer.h.1.", ours));
    const std::string name = absl::StrCat("blk.1.", theirs, ".weight.lora_");
    EXPECT_EQ(Floats(*file, name + "a"), factors.a);
    EXPECT_EQ(Floats(*file, name + "b"), factors.b);
  }
}

// The whole file, built by hand: an adapter of v in both layers.
TEST(GgufLoraFileTest, BytesAreThoseOfTheFormat) {
  const TempDirectory dir;
  const GptConfig config = TinyConfig();
  const PeftAdapter adapter =
      RandomAdapter(config, {.rank = 2, .alpha = 3, .targets = {"v_proj"}}, 1);
  ASSERT_TRUE(
      WriteGgufLora(dir / "lora.gguf", adapter, config, StoredType::kF32).ok());
  GgufBuilder builder;
  builder.String("general.type", "adapter");
  builder.String("general.architecture", "llama");
  builder.String("adapter.type", "lora");
  builder.F32("adapter.lora.alpha", 3);
  for (const char* layer : {"0", "1"}) {
    const PeftFactors& factors = adapter.modules.at(
        absl::StrCat("model.layers.", layer, ".self_attn.v_proj"));
    const std::string name = absl::StrCat("blk.", layer, ".attn_v.weight");
    builder.Tensor(name + ".lora_a", StoredType::kF32, {2, 32},
                   TinyLlama::BytesAs(StoredType::kF32, factors.a));
    builder.Tensor(name + ".lora_b", StoredType::kF32, {8, 2},
                   TinyLlama::BytesAs(StoredType::kF32, factors.b));
  }
  EXPECT_EQ(ReadBytes(dir / "lora.gguf"), builder.Build());
}

TEST(GgufLoraFileTest, AValueThatF16CannotHoldIsRefused) {
  const TempDirectory dir;
  const GptConfig config = TinyConfig();
  PeftAdapter adapter =
      RandomAdapter(config, {.rank = 2, .alpha = 3, .targets = {"v_proj"}}, 1);
  adapter.modules.at("model.layers.1.self_attn.v_proj").a[5] = 1e5f;
  EXPECT_THAT(
      WriteGgufLora(dir / "lora.gguf", adapter, config, StoredType::kF16)
          .message(),
      HasSubstr("blk.1.attn_v.weight.lora_a has a value of 100000, which F16"));
}

class AdapterAlgebraTest : public testing::Test {
 protected:
  const GptConfig config_ = TinyConfig();
  // Of other ranks, scales and modules.
  const PeftAdapter first_ = RandomAdapter(
      config_, {.rank = 3, .alpha = 5, .targets = {"q_proj", "down_proj"}}, 1);
  const PeftAdapter second_ =
      RandomAdapter(config_,
                    {.rank = 2,
                     .alpha = 4,
                     .scaling = LoraScaling::kRankStabilized,
                     .targets = {"q_proj", "v_proj"}},
                    2);
  static constexpr char kQ[] = "model.layers.1.self_attn.q_proj";
};

TEST_F(AdapterAlgebraTest, ASumChangesWeightsAsBothDo) {
  const PeftAdapter sum = Sum(Negated(first_), second_);
  EXPECT_EQ(sum.modules.size(), 6u);
  for (const auto& [module, factors] : sum.modules) {
    SCOPED_TRACE(module);
    std::vector<double> expected(
        static_cast<size_t>(factors.inputs * factors.outputs), 0.0);
    const auto add = [&](const PeftAdapter& adapter, double sign) {
      if (adapter.modules.count(module) == 0) return;
      const std::vector<double> change = ChangeOf(adapter, module);
      for (size_t i = 0; i < expected.size(); ++i) {
        expected[i] += sign * change[i];
      }
    };
    add(first_, -1);
    add(second_, 1);
    ExpectSameChange(ChangeOf(sum, module), expected, factors.rank,
                     DType::kF32);
  }
}

TEST_F(AdapterAlgebraTest, NormsAndCosinesAreThoseOfTheMatrices) {
  const auto modules = Compare(first_, second_);
  ASSERT_EQ(modules.size(), 6u);
  for (const ModuleLikeness& module : modules) {
    EXPECT_EQ(module.in_first && module.in_second, module.comparable);
    if (module.module != kQ) continue;
    const std::vector<double> x = ChangeOf(first_, kQ);
    const std::vector<double> y = ChangeOf(second_, kQ);
    double xx = 0;
    double xy = 0;
    double yy = 0;
    double dd = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      xx += x[i] * x[i];
      xy += x[i] * y[i];
      yy += y[i] * y[i];
      dd += (x[i] - y[i]) * (x[i] - y[i]);
    }
    EXPECT_NEAR(module.change.first_norm, std::sqrt(xx), 1e-12);
    EXPECT_NEAR(module.change.second_norm, std::sqrt(yy), 1e-12);
    EXPECT_NEAR(module.change.difference_norm, std::sqrt(dd), 1e-12);
    EXPECT_NEAR(module.change.cosine, xy / std::sqrt(xx * yy), 1e-12);
    EXPECT_FALSE(module.a.has_value());  // The ranks differ.
  }
}

// (2 B) (A / 2) is the same change by other factors.
TEST_F(AdapterAlgebraTest, OneChangeByOtherFactorsIsTheSame) {
  PeftAdapter turned = first_;
  for (auto& [module, factors] : turned.modules) {
    for (float& value : factors.a) value *= -0.5f;
    for (float& value : factors.b) value *= -2.0f;
  }
  const auto modules = Compare(first_, turned);
  for (const ModuleLikeness& module : modules) {
    EXPECT_NEAR(module.change.cosine, 1, 1e-12);
    EXPECT_LT(module.change.difference_norm, 1e-7 * module.change.first_norm);
    EXPECT_NEAR(module.a->cosine, -1, 1e-12);
    EXPECT_NEAR(module.b->second_norm, 2 * module.b->first_norm, 1e-12);
  }
  EXPECT_NEAR(Total(modules).cosine, 1, 1e-12);
}

}  // namespace
}  // namespace lorica
