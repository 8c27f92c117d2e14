#include "model/pass.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

// Records of these lengths; only tokens whose number is in `targets` have one.
TokenBatch BatchOfLengths(const std::vector<int64_t>& lengths,
                          const std::vector<int64_t>& targets) {
  TokenBatch batch;
  for (const int64_t length : lengths) {
    const auto first = static_cast<int64_t>(batch.tokens.size());
    batch.segments.push_back({first, length, first, length});
    for (int64_t i = 0; i < length; ++i) {
      batch.tokens.push_back(static_cast<int32_t>(100 + first + i));
      batch.positions.push_back(static_cast<int32_t>(i));
      batch.targets.push_back(-1);
      batch.row_index.push_back(1000 + first + i);
    }
  }
  for (const int64_t t : targets) {
    batch.targets[static_cast<size_t>(t)] = static_cast<int32_t>(t);
    ++batch.num_targets;
  }
  return batch;
}

TEST(CutIntoPassesTest, RecordsShareAPassUpToTheLimit) {
  const TokenBatch batch = BatchOfLengths({4, 5, 7, 20, 3}, {0, 4, 9, 16, 36});
  const std::vector<RecordRange> passes = CutIntoPasses(batch, 10);
  ASSERT_EQ(passes.size(), 4u);
  EXPECT_EQ(passes[0].end, 2);
  EXPECT_EQ(passes[1].end, 3);
  EXPECT_EQ(passes[2].end, 4);  // Longer than the limit: alone.
  EXPECT_EQ(passes[3].end, 5);
}

TEST(CutIntoPassesTest, RecordsWithoutATargetAreLeftOut) {
  const TokenBatch batch = BatchOfLengths({4, 5, 4}, {0, 12});
  const std::vector<RecordRange> passes = CutIntoPasses(batch, 100);
  ASSERT_EQ(passes.size(), 2u);
  EXPECT_EQ(passes[0].begin, 0);
  EXPECT_EQ(passes[1].begin, 2);
}

TEST(MakePassTest, RowsAreRoundedUpBehindTheLastRecord) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const TokenBatch batch = BatchOfLengths({5, 6}, {0, 1, 2, 3, 5, 6, 7, 8, 9});
  std::vector<int64_t> place;
  const Pass pass =
      MakePass(device.get(), batch, {1, 2}, Selection::kAll, &place);
  EXPECT_EQ(pass.tokens, 16);
  EXPECT_FALSE(pass.selected.present());
  ASSERT_EQ(pass.segments.size(), 1u);
  EXPECT_EQ(pass.segments[0].num_queries, 16);
  EXPECT_EQ(pass.segments[0].num_keys, 16);
  EXPECT_EQ(pass.segments[0].first_query, 0);
  EXPECT_EQ(pass.ids.ToHost<int32_t>()[0], 105);
  const std::vector<int32_t> targets = pass.targets.ToHost<int32_t>();
  EXPECT_EQ(targets[0], 5);
  EXPECT_EQ(targets[5], -1);
  EXPECT_EQ(targets[15], -1);
  EXPECT_EQ(place[0], 5);
  EXPECT_EQ(place[5], -1);
}

TEST(MakePassTest, OnlyRowsWithATargetAreSelectedInOrder) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const TokenBatch batch = BatchOfLengths({64}, {40, 41, 50});
  const Pass pass = MakeTrainingPass(device.get(), batch, {0, 1},
                                     Selection::kTargets, /*seed=*/3);
  const std::vector<int32_t> selected = pass.selected.ToHost<int32_t>();
  ASSERT_EQ(selected.size(), 16u);  // Filled up with rows without a target.
  const std::vector<int32_t> targets = pass.targets.ToHost<int32_t>();
  const std::vector<int64_t> numbers =
      pass.selected_row_index.ToHost<int64_t>();
  int with_target = 0;
  for (size_t i = 0; i < selected.size(); ++i) {
    if (i > 0) {
      EXPECT_LT(selected[i - 1], selected[i]);
    }
    EXPECT_EQ(numbers[i], 1000 + selected[i]);
    if (targets[i] >= 0) {
      EXPECT_EQ(targets[i], selected[i]);
      ++with_target;
    }
  }
  EXPECT_EQ(with_target, 3);
}

TEST(MakePassTest, ReplacedRowsAreThoseOfAPassOfTheirOwn) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto rows_of = [](const TokenBatch& batch, uint64_t seed) {
    return CollectTrainingRows(batch,
                               {0, static_cast<int64_t>(batch.segments.size())},
                               Selection::kTargets, seed);
  };
  const TrainingRows rows = rows_of(BatchOfLengths({20, 41}, {7, 30, 60}), 5);
  Pass pass = MakeTrainingPass(device.get(),
                               rows_of(BatchOfLengths({64}, {40, 41, 50}), 3));
  Replace(rows, &pass);
  EXPECT_EQ(pass.ids.ToHost<int32_t>(), rows.ids);
  EXPECT_EQ(pass.positions.ToHost<int32_t>(), rows.positions);
  EXPECT_EQ(pass.selected.ToHost<int32_t>(), rows.selected);
  EXPECT_EQ(pass.targets.ToHost<int32_t>(), rows.targets);
  EXPECT_EQ(pass.row_index.ToHost<int64_t>(), rows.row_index);
  EXPECT_EQ(pass.selected_row_index.ToHost<int64_t>(), rows.selected_row_index);
  ASSERT_EQ(pass.segments.size(), 2u);
  EXPECT_EQ(pass.segments[1].first_query, 20);
  EXPECT_EQ(pass.seed, 5u);
}

}  // namespace
}  // namespace lorica
