// Where LoraLinear wants its operands and what it keeps of them. Its numbers
// are the golden tests'.
#include "model/layers/lora_linear.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/allocator.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

constexpr int64_t kTokens = 32;
constexpr int64_t kInputs = 16;
constexpr int64_t kOutputs = 8;
constexpr int64_t kRanks = 4;

LinearAdapter Bordered() {
  LinearAdapter adapter;
  adapter.border = kRanks;
  return adapter;
}

TEST(LoraLinearTest, WantsRoomInRowsThatNeedNotTravel) {
  struct Case {
    LinearPlan plan;
    int ranks;
    int64_t input;
    int64_t grad;
  };
  const Case cases[] = {
      {kTensorParallel.column, 2, kRanks, kRanks},
      {kTensorParallel.row, 2, kRanks, kRanks},
      {kSequenceParallel.column, 2, 0, kRanks},
      {kSequenceParallel.row, 2, kRanks, 0},
      {kSequenceParallel.column, 1, kRanks, kRanks},
      {kSequenceParallel.row, 1, kRanks, kRanks},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(&c - cases);
    RunRanks(c.ranks, [&](std::unique_ptr<Communicator> group) {
      const LoraLinear layer(c.plan, {}, group.get());
      EXPECT_EQ(layer.InputRoom(Bordered()), c.input);
      EXPECT_EQ(layer.GradRoom(Bordered()), c.grad);
      EXPECT_EQ(layer.InputRoom({}), 0);
      EXPECT_EQ(layer.GradRoom({}), 0);
    });
  }
}

// What is in use once x and y are gone, beyond what was before them.
size_t BytesKept(KeepInput keep) {
  size_t kept = 0;
  RunRanks(1, [&](std::unique_ptr<Communicator> group) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const auto zeros = [&](Shape shape) {
      return Tensor::Zeros(device.get(), shape, DType::kF32);
    };
    LinearAdapter adapter = Bordered();
    adapter.a = zeros({kRanks, kInputs});
    adapter.parts = {{.b = zeros({kOutputs, kRanks})}};
    const LoraLinear layer(kTensorParallel.column,
                           {.weights = {zeros({kOutputs, kInputs})}},
                           group.get());
    const size_t before = device->allocator().bytes_in_use();
    LoraLinear::Saved saved;
    {
      Tensor x = Tensor::WithRoom(device.get(), {kTokens, kInputs}, DType::kF32,
                                  layer.InputRoom(adapter));
      ops::Fill(1.0f, &x);
      layer.Forward(x, adapter, {.tokens = kTokens}, keep, &saved);
    }
    kept = device->allocator().bytes_in_use() - before;
    EXPECT_EQ(saved.xa.ToFloats(), std::vector<float>(kTokens * kRanks, 0.0f));
  });
  return kept;
}

TEST(LoraLinearTest, AnInputThatIsNotKeptLeavesItsXaAlone) {
  constexpr size_t kRowBytes = 64 * sizeof(float);  // With room.
  EXPECT_EQ(BytesKept(KeepInput::kYes), kTokens * kRowBytes)
      << "xa lies beside x";
  EXPECT_EQ(BytesKept(KeepInput::kNo), kTokens * kRanks * sizeof(float));
}

// How an adapter of two parts, of 2 and 5 ranks and one spare, might be handed
// over.
struct Ranks {
  int64_t first_db = 2;
  int64_t last_b = 6;
  int64_t last_db = 5;
  int64_t last_begin = 2;
  int64_t da = 7;
};

void MultiplyBack(const Ranks& ranks) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto zeros = [&](int64_t rows, int64_t cols) {
    return Tensor::Zeros(device.get(), {rows, cols}, DType::kF32);
  };
  const Tensor dy = zeros(kTokens, kOutputs);
  Tensor da = zeros(ranks.da, kInputs);
  ops::LoraBackward({{dy, dy}}, zeros(kTokens, kInputs), zeros(kTokens, 8),
                    zeros(8, kInputs), &da,
                    {{{.weight = zeros(kOutputs, kInputs),
                       .b = zeros(kOutputs, 2),
                       .db = zeros(kOutputs, ranks.first_db)},
                      {.weight = zeros(kOutputs, kInputs),
                       .b = zeros(kOutputs, ranks.last_b),
                       .db = zeros(kOutputs, ranks.last_db),
                       .first_rank = ranks.last_begin}}},
                    ops::InputGrad::kWhole);
}

TEST(LoraOpsDeathTest, RanksAreOfOnePartEachAndTheLastAloneHasSpareOnes) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  MultiplyBack({});
  EXPECT_DEATH(MultiplyBack({.last_b = 5}), "7 vs. 8") << "one has no part";
  EXPECT_DEATH(MultiplyBack({.last_begin = 1}), "1 vs. 2") << "one has two";
  EXPECT_DEATH(MultiplyBack({.last_db = 6}), "Check failed");
  EXPECT_DEATH(MultiplyBack({.first_db = 1}), "Check failed");
  EXPECT_DEATH(MultiplyBack({.last_db = 7, .da = 9}), "9 of 8");
}

}  // namespace
}  // namespace lorica
