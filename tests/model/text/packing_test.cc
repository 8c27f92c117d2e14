#include "model/text/packing.h"

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

using testing::ElementsAre;

Dataset TwoRecords() {
  Dataset dataset;
  dataset.records.push_back(
      {.tokens = {10, 11, 12}, .is_target = {0, 1, 1}, .line = 1});
  dataset.records.push_back(
      {.tokens = {20, 21, 22, 23}, .is_target = {0, 0, 0, 1}, .line = 2});
  dataset.records.push_back({.tokens = {30}, .is_target = {0}, .line = 3});
  dataset.num_without_target = 1;
  return dataset;
}

const DataOrderOptions kPacked = {.row_tokens = 8,
                                  .packing = Packing::kSeveralPerRow,
                                  .shuffling = Shuffling::kFileOrder};

TEST(PackingTest, ABatchIsItsRowsWithoutPadding) {
  const Dataset dataset = TwoRecords();
  auto order = MakeDataOrder(dataset, kPacked);
  ASSERT_TRUE(order.ok()) << order.status();
  const TokenBatch batch = MakeBatch(dataset, 3, 1, &*order);
  EXPECT_THAT(batch.tokens, ElementsAre(10, 11, 12, 20, 21, 22, 23));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 0, 1, 2, 3));
  EXPECT_THAT(batch.targets, ElementsAre(11, 12, -1, -1, -1, 23, -1));
  EXPECT_THAT(batch.row_index, ElementsAre(24, 25, 26, 27, 28, 29, 30));
  ASSERT_EQ(batch.segments.size(), 2u);
  EXPECT_EQ(batch.segments[1].first_query, 3);
  EXPECT_EQ(batch.segments[1].num_queries, 4);
  EXPECT_EQ(batch.segments[1].first_key, 3);
  EXPECT_EQ(batch.segments[1].num_keys, 4);
  EXPECT_EQ(batch.num_targets, 3);
}

TEST(PackingTest, TargetsAreCountedWithoutTheBatch) {
  const Dataset dataset = TwoRecords();
  DataOrderOptions options = kPacked;
  options.packing = Packing::kOnePerRow;
  auto order = MakeDataOrder(dataset, options);
  ASSERT_TRUE(order.ok()) << order.status();
  for (int64_t rows = 0; rows < 6; ++rows) {
    EXPECT_EQ(NumTargets(dataset, 1, rows, &*order),
              MakeBatch(dataset, 1, rows, &*order).num_targets);
  }
  EXPECT_EQ(NumTargets(dataset, 0, 2, &*order), 3);
}

// Micro-batches of any size are the same tokens with the same numbers.
TEST(PackingTest, ASplitBatchIsTheWholeBatch) {
  const Dataset dataset = TwoRecords();
  DataOrderOptions options = kPacked;
  options.shuffling = Shuffling::kEachEpoch;
  auto order = MakeDataOrder(dataset, options);
  ASSERT_TRUE(order.ok()) << order.status();
  const TokenBatch whole = MakeBatch(dataset, 0, 12, &*order);
  for (const int64_t part : {1, 2, 3, 4, 6}) {
    std::vector<int32_t> tokens;
    std::vector<int64_t> row_index;
    for (int64_t row = 0; row < 12; row += part) {
      const TokenBatch batch = MakeBatch(dataset, row, part, &*order);
      tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
      row_index.insert(row_index.end(), batch.row_index.begin(),
                       batch.row_index.end());
    }
    EXPECT_EQ(tokens, whole.tokens);
    EXPECT_EQ(row_index, whole.row_index);
  }
  const std::set<int64_t> numbers(whole.row_index.begin(),
                                  whole.row_index.end());
  EXPECT_EQ(numbers.size(), whole.row_index.size());
}

TEST(PackingTest, NeedsARecordWithATarget) {
  Dataset dataset;
  dataset.records.push_back({.tokens = {1}, .is_target = {0}, .line = 1});
  dataset.num_without_target = 1;
  EXPECT_THAT(std::string(MakeDataOrder(dataset, kPacked).status().message()),
              testing::HasSubstr("none of the 1 records has a token to learn"));
}

}  // namespace
}  // namespace lorica
