#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

GptConfig SixHeads() {
  GptConfig config = {.vocab_size = 50,
                      .hidden_size = 24,
                      .num_layers = 2,
                      .num_heads = 6,
                      .num_kv_heads = 3,
                      .head_dim = 8,
                      .intermediate_size = 40,
                      .max_positions = 16};
  config.rope.inv_freq.resize(4);
  return config;
}

std::unique_ptr<Adapter> Make(Device* device, const LoraConfig& lora, int rank,
                              int ranks) {
  const GptConfig config = SixHeads();
  const ModelSplit split = *SplitModel(config, ranks);
  return std::make_unique<Adapter>(device, DType::kF32, config.num_layers,
                                   *ResolveTargets(config, split, lora),
                                   lora.dropout, rank);
}

// Values by (module, kind, row, column) of the whole factor.
using Cells = std::map<std::pair<std::string, int>,
                       std::map<std::pair<int64_t, int64_t>, float>>;

void Collect(const Adapter& adapter, Cells* cells) {
  for (const Factor& factor : adapter.factors()) {
    const std::vector<float> values = adapter.GetValue(factor);
    auto& whole = (*cells)[{factor.module, static_cast<int>(factor.kind)}];
    size_t i = 0;
    for (int64_t r = factor.slice.rows.begin; r < factor.slice.rows.end; ++r) {
      for (int64_t c = factor.slice.cols.begin; c < factor.slice.cols.end;
           ++c) {
        const auto [cell, fresh] = whole.try_emplace({r, c}, values[i]);
        EXPECT_EQ(cell->second, values[i]) << factor.module;
        ++i;
      }
    }
  }
}

TEST(AdapterTest, InitialValuesAreTheSameOnEveryMesh) {
  const LoraConfig lora = {.rank = 3, .targets = {"all-linear"}};
  const std::unique_ptr<Device> device = OpenTestDevice();
  Cells whole;
  const auto one = Make(device.get(), lora, 0, 1);
  one->Initialize(7);
  Collect(*one, &whole);
  for (const int ranks : {2, 3, 5}) {
    Cells parts;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto part = Make(device.get(), lora, rank, ranks);
      part->Initialize(7);
      Collect(*part, &parts);
    }
    EXPECT_EQ(parts, whole) << ranks;
  }
}

// k is frozen between q and v, and 6 ranks take a border of 8.
TEST(AdapterTest, WhatMovedIntoABorderIsRefreshedThereAndLeavesZerosBetween) {
  const std::unique_ptr<Device> device =
      OpenCpuDevice({.allocation = Allocation::kPool});
  const auto adapter =
      Make(device.get(), {.rank = 3, .targets = {"q_proj", "v_proj"}}, 0, 1);
  adapter->Initialize(7);
  const auto stay =
      Make(device.get(), {.rank = 3, .targets = {"q_proj", "v_proj"}}, 0, 1);
  stay->Initialize(7);
  const int64_t outputs[] = {48, 24, 24};
  {
    // Where the stack is to lie, memory holds something.
    Tensor used = Tensor::Empty(device.get(), {1 << 16}, DType::kF32);
    ops::Fill(NAN, &used);
  }
  const WeightStack stack(device.get(), DType::kF32, outputs, 24, 6);
  adapter->MoveInto(1, kQ, stack);
  EXPECT_EQ(adapter->linear(1, kQ).border, 8);
  EXPECT_EQ(adapter->linear(0, kQ).border, 0);
  for (Adapter* each : {adapter.get(), stay.get()}) {
    for (const Factor& factor : each->factors()) {
      std::vector<float> values(static_cast<size_t>(factor.elements));
      std::iota(values.begin(), values.end(),
                static_cast<float>(factor.offset));
      each->SetValue(factor, values);
    }
  }
  const Tensor a = stack.a().Rows({0, 6});
  EXPECT_EQ(a.ToFloats(), stay->linear(1, kQ).a.ToFloats())
      << "before the refresh";
  for (Adapter* each : {adapter.get(), stay.get()}) each->Refresh();
  const LinearAdapter& expected = stay->linear(1, kQ);
  EXPECT_EQ(a.ToFloats(), expected.a.ToFloats());
  EXPECT_EQ(stack.b(0, {0, 3}).ToFloats(), expected.parts[0].b.ToFloats());
  EXPECT_EQ(stack.b(2, {3, 6}).ToFloats(), expected.parts[2].b.ToFloats());
  const auto all_zero = [](const Tensor& t) {
    const std::vector<float> values = t.ToFloats();
    return std::all_of(values.begin(), values.end(),
                       [](float v) { return v == 0.0f; });
  };
  EXPECT_TRUE(all_zero(stack.b(0, {3, 6})));
  EXPECT_TRUE(all_zero(stack.b(1, {0, 6})));
  EXPECT_TRUE(all_zero(stack.b(2, {0, 3})));
  for (const size_t part : {0, 1, 2}) {
    EXPECT_TRUE(all_zero(stack.b(part, {6, 8}))) << part;
  }
  EXPECT_TRUE(all_zero(stack.a().Rows({6, 8})));
  const LinearAdapter& moved = adapter->linear(1, kQ);
  EXPECT_EQ(moved.a.shape(), (Shape{8, 24})) << "with the spare ranks";
  EXPECT_EQ(moved.parts[0].b.shape(), (Shape{48, 3}));
  EXPECT_EQ(moved.parts[2].b.shape(), (Shape{24, 5})) << "the last part's";
  EXPECT_EQ(moved.da.shape(), (Shape{6, 24}));
  EXPECT_EQ(moved.parts[2].db.shape(), (Shape{24, 3}));
  EXPECT_EQ(adapter->linear(0, kQ).a.ToFloats(),
            stay->linear(0, kQ).a.ToFloats());
}

TEST(AdapterTest, AIsUniformWithinPeftsBoundAndBIsZero) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto adapter =
      Make(device.get(), {.rank = 8, .targets = {"down_proj"}}, 0, 1);
  adapter->Initialize(1);
  for (const Factor& factor : adapter->factors()) {
    const std::vector<float> values = adapter->GetValue(factor);
    if (factor.kind == Factor::Kind::kB) {
      for (const float v : values) EXPECT_EQ(v, 0.0f);
      continue;
    }
    const double bound = 1.0 / std::sqrt(40.0);
    double squares = 0.0;
    for (const float v : values) {
      EXPECT_LE(std::abs(v), bound);
      squares += v * v;
    }
    // The variance of a uniform draw is bound^2 / 3, that of its square's mean
    // over n draws 4 bound^4 / (45 n): five standard deviations.
    const double n = static_cast<double>(values.size());
    EXPECT_NEAR(squares / n, bound * bound / 3.0,
                5.0 * bound * bound * std::sqrt(4.0 / 45.0 / n));
  }
}

GptConfig FusedHeads() {
  return {.family = Family::kGpt2,
          .norm = NormKind::kLayer,
          .positions = Positions::kLearned,
          .activation = Activation::kGelu,
          .vocab_size = 50,
          .hidden_size = 12,
          .num_layers = 1,
          .num_heads = 3,
          .num_kv_heads = 3,
          .head_dim = 4,
          .intermediate_size = 20,
          .max_positions = 16};
}

// One A and one B over q, k and v: of two ranks the first has the rows of two
// heads of each.
TEST(AdapterTest, AFusedLayersFactorIsCutInEachSection) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const GptConfig config = FusedHeads();
  const LoraConfig lora = {.rank = 2, .alpha = 2, .targets = {"c_attn"}};
  const int64_t first_rows[] = {0, 8};
  for (const int rank : {0, 1}) {
    Adapter adapter(device.get(), DType::kF32, 1,
                    *ResolveTargets(config, *SplitModel(config, 2), lora), 0.0f,
                    rank);
    EXPECT_EQ(adapter.total_parameters(), 2 * 12 + 36 * 2);
    int64_t sections = 0;
    std::vector<float> expected;  // Rows of q, k and v, by their numbers.
    for (const Factor& factor : adapter.factors()) {
      std::vector<float> values(static_cast<size_t>(factor.elements));
      if (factor.kind == Factor::Kind::kB) {
        EXPECT_EQ(factor.shape, (Shape{36, 2}));
        EXPECT_EQ(factor.slice.rows.begin, 12 * sections++ + first_rows[rank]);
        std::iota(values.begin(), values.end(),
                  static_cast<float>(2 * factor.slice.rows.begin));
        expected.insert(expected.end(), values.begin(), values.end());
      }
      adapter.SetValue(factor, values);
    }
    EXPECT_EQ(sections, 3);
    adapter.Refresh();
    const LinearAdapter& qkv = adapter.attention(0).qkv;
    EXPECT_EQ(qkv.parts[0].b.shape(), (Shape{rank == 0 ? 24 : 12, 2}));
    EXPECT_EQ(qkv.parts[0].b.ToFloats(), expected);
    EXPECT_FALSE(qkv.parts[1].b.present());
  }
}

TEST(AdapterTest, FactorsOfOneInputAreStackedForOneProduct) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto adapter =
      Make(device.get(), {.rank = 3, .targets = {"q_proj", "v_proj"}}, 0, 1);
  const LinearAdapter& qkv = adapter->attention(1).qkv;
  EXPECT_EQ(qkv.a.shape(), (Shape{6, 24}));
  EXPECT_TRUE(qkv.parts[0].b.present());
  EXPECT_FALSE(qkv.parts[1].b.present());
  EXPECT_EQ(qkv.parts[2].first_rank, 3);
  EXPECT_FALSE(adapter->attention(1).o.present());
  EXPECT_EQ(adapter->lowest_layer(), 0);
  EXPECT_EQ(adapter->total_parameters(),
            2 * (3 * 24 + 48 * 3 + 3 * 24 + 24 * 3));
}

TEST(AdapterTest, TheComputeCopyOfBCarriesTheScale) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto adapter =
      Make(device.get(),
           {.rank = 2, .alpha = 5, .targets = {"0.mlp.down_proj"}}, 0, 1);
  for (const Factor& factor : adapter->factors()) {
    adapter->SetValue(
        factor, std::vector<float>(static_cast<size_t>(factor.elements), 2.0f));
  }
  adapter->Refresh();
  const LinearAdapter& down = adapter->mlp(0).down;
  EXPECT_EQ(down.a.ToHost<float>()[0], 2.0f);
  EXPECT_EQ(down.parts[0].b.ToHost<float>()[0], 5.0f);
}

}  // namespace
}  // namespace lorica
