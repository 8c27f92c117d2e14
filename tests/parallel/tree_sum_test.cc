#include "parallel/tree_sum.h"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/random.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

constexpr int64_t kElements = 300;

// Numbers of very different size, so that every order rounds differently.
float Element(int64_t term, int64_t i) {
  const RandomField field = {7, static_cast<uint64_t>(term)};
  const float u = field.Uniform(static_cast<uint64_t>(2 * i)) - 0.5f;
  const int shift =
      static_cast<int>(field.Word(static_cast<uint64_t>(2 * i + 1)) % 20);
  return u * static_cast<float>(1 << shift);
}

// The definition.
float TreeOf(int64_t first, int64_t count, int64_t i) {
  if (count == 1) return Element(first, i);
  const int64_t left = TreeSplit(count);
  return TreeOf(first, left, i) + TreeOf(first + left, count - left, i);
}

std::vector<float> TreeOf(int64_t count) {
  std::vector<float> sums;
  for (int64_t i = 0; i < kElements; ++i) sums.push_back(TreeOf(0, count, i));
  return sums;
}

Tensor TermOf(Device* device, int64_t term) {
  std::vector<float> values;
  for (int64_t i = 0; i < kElements; ++i) values.push_back(Element(term, i));
  return Tensor::FromHost<float>(device, {kElements}, values);
}

TEST(TreeSumTest, TheLeftBranchIsTheLargestPowerOfTwo) {
  EXPECT_EQ(TreeSplit(2), 1);
  EXPECT_EQ(TreeSplit(3), 2);
  EXPECT_EQ(TreeSplit(4), 2);
  EXPECT_EQ(TreeSplit(5), 4);
  EXPECT_EQ(TreeSplit(8), 4);
  EXPECT_EQ(TreeSplit(9), 8);
}

TEST(TreeSumTest, TermsOneByOneMakeTheTree) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  for (int64_t count = 1; count <= 17; ++count) {
    TreeSum<Tensor> tree;
    for (int64_t t = 0; t < count; ++t) tree.Add(TermOf(device.get(), t));
    EXPECT_EQ(tree.Take()->ToHost<float>(), TreeOf(count)) << count;
    EXPECT_FALSE(tree.Take().has_value());
  }
}

TEST(TreeSumTest, ScalarsAddInTheSameOrder) {
  for (int64_t count = 1; count <= 9; ++count) {
    TreeSum<double> tree;
    for (int64_t t = 0; t < count; ++t) tree.Add(Element(t, 0));
    const auto sum = [](const auto& self, int64_t first, int64_t n) -> double {
      if (n == 1) return Element(first, 0);
      return self(self, first, TreeSplit(n)) +
             self(self, first + TreeSplit(n), n - TreeSplit(n));
    };
    EXPECT_EQ(tree.Take(), sum(sum, 0, count));
  }
}

// The claim of tree_sum.h.
TEST(TreeSumTest, NumberOfRanksChangesNoBit) {
  struct Case {
    int ranks;
    int64_t micro_batches;
  };
  for (const auto& [ranks, micro_batches] :
       {Case{1, 8}, Case{2, 4}, Case{4, 2}, Case{8, 1}, Case{3, 4}, Case{5, 1},
        Case{6, 2}, Case{7, 1}}) {
    const std::vector<float> expected = TreeOf(ranks * micro_batches);
    RunRanks(ranks, [&, n = micro_batches](std::unique_ptr<Communicator> data) {
      const std::unique_ptr<Device> device = OpenTestDevice();
      TreeSum<Tensor> tree;
      for (int64_t t = 0; t < n; ++t) {
        tree.Add(TermOf(device.get(), data->rank() * n + t));
      }
      Tensor sum = *tree.Take();
      data->AllReduceSum(&sum, Purpose::kAdapterGrad);
      EXPECT_EQ(sum.ToHost<float>(), expected) << data->size();
    });
  }
}

// What the claim excludes: it would not be an invariant but luck.
TEST(TreeSumTest, OtherCountsRoundDifferently) {
  EXPECT_NE(TreeOf(6), [] {
    std::vector<float> sums;
    for (int64_t i = 0; i < kElements; ++i) {
      sums.push_back(TreeOf(0, 3, i) + TreeOf(3, 3, i));
    }
    return sums;
  }());
}

}  // namespace
}  // namespace lorica
