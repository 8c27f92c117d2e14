#include "parallel/shard_spec.h"

#include <gtest/gtest.h>

#include <vector>

namespace lorica {
namespace {

TEST(ShardSpecTest, UnitsAreSplitEvenly) {
  EXPECT_EQ(SplitUnits(10, 0, 4), (Range{0, 3}));
  EXPECT_EQ(SplitUnits(10, 1, 4), (Range{3, 6}));
  EXPECT_EQ(SplitUnits(10, 2, 4), (Range{6, 8}));
  EXPECT_EQ(SplitUnits(10, 3, 4), (Range{8, 10}));
  EXPECT_EQ(SplitUnits(1, 1, 2).size(), 0);
  // 3 key/value heads of 64 rows over two ranks: 2 + 1.
  EXPECT_EQ(SplitEvenly(192, 64, 2), (Split{{0, 128}, {128, 192}}));
}

TEST(ShardSpecTest, SlicesTileTheWhole) {
  for (const Shape& global : {Shape{13, 5}, Shape{4, 9}, Shape{11}}) {
    for (int dim = 0; dim < global.rank(); ++dim) {
      for (const int ranks : {1, 2, 3, 4, 7}) {
        const ShardSpec spec = Sharded(dim, SplitEvenly(global[dim], 1, ranks));
        std::vector<int> held(global.elements(), 0);
        const int64_t cols = global.rank() == 2 ? global[1] : global[0];
        for (int rank = 0; rank < ranks; ++rank) {
          const Slice slice = SliceOf(spec, global, rank);
          EXPECT_EQ(LocalShape(spec, global, rank).elements(),
                    slice.rows.size() * slice.cols.size());
          for (int64_t r = slice.rows.begin; r < slice.rows.end; ++r) {
            for (int64_t c = slice.cols.begin; c < slice.cols.end; ++c) {
              ++held[r * cols + c];
            }
          }
        }
        EXPECT_EQ(held, std::vector<int>(global.elements(), 1)) << global;
      }
    }
  }
}

TEST(ShardSpecTest, OtherLayoutsHoldTheWhole) {
  const Slice whole = {{0, 4}, {0, 6}};
  EXPECT_EQ(SliceOf(Invariant(), {4, 6}, 3), whole);
  EXPECT_EQ(SliceOf(Replicated(), {4, 6}, 1), whole);
  EXPECT_EQ(SliceOf(Invariant(), {6}, 0), (Slice{{0, 1}, {0, 6}}));
  EXPECT_EQ(LocalShape(Replicated(), {6}, 2), (Shape{6}));
}

TEST(ShardSpecTest, AdaptersFollowTheirWeight) {
  const Split split = {{0, 3}, {3, 5}};
  const LoraSpecs column = LoraSpecsFor(Sharded(0, split));
  EXPECT_EQ(column.a.layout, Layout::kReplicated);
  EXPECT_EQ(column.b.layout, Layout::kSharded);
  EXPECT_EQ(column.b.dim, 0);
  EXPECT_EQ(column.b.split, split);
  const LoraSpecs row = LoraSpecsFor(Sharded(1, split));
  EXPECT_EQ(row.a.layout, Layout::kSharded);
  EXPECT_EQ(row.a.dim, 1);
  EXPECT_EQ(row.a.split, split);
  EXPECT_EQ(row.b.layout, Layout::kReplicated);
  const LoraSpecs whole = LoraSpecsFor(Invariant());
  EXPECT_EQ(whole.a.layout, Layout::kInvariant);
  EXPECT_EQ(whole.b.layout, Layout::kInvariant);
}

TEST(ShardSpecTest, HoldersOfASliceAreKnown) {
  const ShardSpec shared =
      Sharded(0, {{0, 64}, {0, 64}, {64, 128}, {64, 128}, {128, 128}});
  EXPECT_EQ(FirstHolder(shared, 1), 0);
  EXPECT_EQ(FirstHolder(shared, 2), 2);
  EXPECT_EQ(FirstHolder(shared, 3), 2);
  EXPECT_EQ(FirstHolder(shared, 4), 4);
  EXPECT_EQ(FirstHolder(Replicated(), 3), 0);
  EXPECT_EQ(FirstHolder(Invariant(), 3), 0);
}

TEST(ShardSpecDeathTest, MisuseIsFatal) {
  EXPECT_DEATH(SplitEvenly(10, 3, 2), "units of 3 do not divide 10");
  EXPECT_DEATH(SplitUnits(10, 2, 2), "Check failed");
  const ShardSpec spec = Sharded(0, {{0, 2}, {2, 5}});
  EXPECT_DEATH(SliceOf(spec, {4, 1}, 1), "slice \\[2, 5\\) of dimension 0");
  EXPECT_DEATH(SliceOf(spec, {5, 1}, 2), "Check failed");
  EXPECT_DEATH(SliceOf(Sharded(1, {{0, 5}}), {5}, 0), "Check failed");
}

}  // namespace
}  // namespace lorica
