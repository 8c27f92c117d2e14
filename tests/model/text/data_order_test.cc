#include "model/text/data_order.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorica {
namespace {

using testing::ElementsAre;

DataOrderOptions Options(Packing packing, Shuffling shuffling,
                         uint64_t seed = 1) {
  return {.row_tokens = 10,
          .packing = packing,
          .shuffling = shuffling,
          .seed = seed};
}

std::vector<std::vector<int64_t>> Rows(DataOrder* order, int64_t begin,
                                       int64_t end) {
  std::vector<std::vector<int64_t>> rows;
  for (int64_t row = begin; row < end; ++row) {
    rows.push_back(order->RecordsOf(row));
  }
  return rows;
}

TEST(DataOrderTest, FileOrderStartsOverAtTheEnd) {
  DataOrder order({3, 0, 5, 10},
                  Options(Packing::kOnePerRow, Shuffling::kFileOrder));
  EXPECT_THAT(Rows(&order, 0, 7),
              ElementsAre(ElementsAre(0), ElementsAre(2), ElementsAre(3),
                          ElementsAre(0), ElementsAre(2), ElementsAre(3),
                          ElementsAre(0)));
}

TEST(DataOrderTest, RowsTakeRecordsWhileTheyFit) {
  DataOrder order({3, 7, 1, 10, 4, 4, 4},
                  Options(Packing::kSeveralPerRow, Shuffling::kFileOrder));
  EXPECT_THAT(
      Rows(&order, 0, 6),
      ElementsAre(ElementsAre(0, 1), ElementsAre(2), ElementsAre(3),
                  ElementsAre(4, 5), ElementsAre(6), ElementsAre(0, 1)));
}

TEST(DataOrderTest, EveryEpochVisitsEveryRecordOnceInANewOrder) {
  std::vector<int64_t> tokens(100, 3);
  tokens[7] = 0;
  DataOrder order(tokens,
                  Options(Packing::kSeveralPerRow, Shuffling::kEachEpoch));
  std::set<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    std::vector<int64_t> visited;
    for (const auto& row : Rows(&order, 33 * epoch, 33 * (epoch + 1))) {
      EXPECT_EQ(row.size(), 3u);
      visited.insert(visited.end(), row.begin(), row.end());
    }
    orders.insert(visited);
    std::sort(visited.begin(), visited.end());
    EXPECT_EQ(visited.size(), 99u);
    EXPECT_EQ(std::unique(visited.begin(), visited.end()), visited.end());
  }
  EXPECT_EQ(orders.size(), 5u);
}

TEST(DataOrderTest, ARowIsAFunctionOfItsNumber) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < 50; ++i) {
    tokens.push_back(1 + i * 7 % 10);
  }
  const auto options =
      Options(Packing::kSeveralPerRow, Shuffling::kEachEpoch, 5);
  DataOrder forward(tokens, options);
  const auto rows = Rows(&forward, 0, 300);
  DataOrder jump(tokens, options);
  for (const int64_t row : {299, 0, 150, 31, 30, 299, 29}) {
    EXPECT_EQ(jump.RecordsOf(row), rows[row]) << row;
  }
  DataOrder other(tokens,
                  Options(Packing::kSeveralPerRow, Shuffling::kEachEpoch, 6));
  EXPECT_NE(Rows(&other, 0, 300), rows);
}

TEST(DataOrderTest, ShufflesEvenly) {
  DataOrder order(std::vector<int64_t>(4, 1),
                  Options(Packing::kOnePerRow, Shuffling::kEachEpoch));
  constexpr int64_t kEpochs = 4096;
  std::vector<int64_t> counts(16, 0);
  for (int64_t row = 0; row < 4 * kEpochs; ++row) {
    ++counts[4 * (row % 4) + order.RecordsOf(row)[0]];
  }
  // Each count is binomial with p = 1/4: five standard deviations.
  const double spread = 5 * std::sqrt(kEpochs * 0.25 * 0.75);
  for (const int64_t count : counts) {
    EXPECT_NEAR(static_cast<double>(count), kEpochs / 4.0, spread);
  }
}

TEST(DataOrderTest, TellsTheEpoch) {
  DataOrder order({5, 5, 5, 5},
                  Options(Packing::kOnePerRow, Shuffling::kEachEpoch));
  EXPECT_EQ(order.EpochOf(0), 0.0);
  EXPECT_EQ(order.EpochOf(2), 0.5);
  EXPECT_EQ(order.EpochOf(9), 2.25);
}

TEST(DataOrderDeathTest, NeedsRecordsThatFit) {
  const auto options = Options(Packing::kOnePerRow, Shuffling::kEachEpoch);
  EXPECT_DEATH(DataOrder({0, 0}, options), "no record has a target");
  EXPECT_DEATH(DataOrder({11}, options), "10");
}

}  // namespace
}  // namespace lorica
