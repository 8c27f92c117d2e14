#include "parallel/tree_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
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

// As one who is given the terms first .. first + count - 1 one by one.
std::vector<float> OneByOne(int64_t first, int64_t count) {
  using Sum = std::vector<float>;
  std::vector<Sum> partial(static_cast<size_t>(LevelsOfTree(count)));
  for (int64_t t = 0; t < count; ++t) {
    Sum term;
    for (int64_t i = 0; i < kElements; ++i) {
      term.push_back(Element(first + t, i));
    }
    const TreeStep step = StepOfTree(t, count);
    for (size_t level = 0; level < partial.size(); ++level) {
      if ((step.joined >> level & 1) == 0) continue;
      const Sum joined = std::exchange(partial[level], {});
      EXPECT_EQ(std::ssize(joined), kElements) << t << " of " << count;
      for (size_t i = 0; i < joined.size(); ++i) term[i] += joined[i];
    }
    if (step.level < 0) {
      EXPECT_EQ(t + 1, count);
      EXPECT_THAT(partial, testing::Each(testing::IsEmpty()));
      return term;
    }
    Sum& place = partial.at(static_cast<size_t>(step.level));
    EXPECT_THAT(place, testing::IsEmpty()) << t << " of " << count;
    place = std::move(term);
  }
  return {};
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
  for (int64_t count = 1; count <= 17; ++count) {
    EXPECT_EQ(OneByOne(0, count), TreeOf(count)) << count;
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
      Tensor sum = Tensor::FromHost<float>(device.get(), {kElements},
                                           OneByOne(data->rank() * n, n));
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
