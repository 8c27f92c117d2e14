#include "parallel/shard_spec.h"

#include <algorithm>

#include "runtime/check.h"

namespace lorica {

Range SplitUnits(int64_t units, int rank, int ranks) {
  CHECK_GE(units, 0);
  CHECK_GE(rank, 0);
  CHECK_LT(rank, ranks);
  const int64_t each = units / ranks;
  const int64_t longer = units % ranks;
  const int64_t begin = rank * each + std::min<int64_t>(rank, longer);
  return {begin, begin + each + (rank < longer ? 1 : 0)};
}

Split SplitEvenly(int64_t size, int64_t unit, int ranks) {
  CHECK_GT(unit, 0);
  CHECK_EQ(size % unit, 0) << "units of " << unit << " do not divide " << size;
  Split split;
  for (int rank = 0; rank < ranks; ++rank) {
    const Range units = SplitUnits(size / unit, rank, ranks);
    split.push_back({units.begin * unit, units.end * unit});
  }
  return split;
}

int FirstHolder(const ShardSpec& spec, int rank) {
  if (spec.layout != Layout::kSharded) return 0;
  CHECK_GE(rank, 0);
  CHECK_LT(rank, static_cast<int>(spec.split.size()));
  const Range& mine = spec.split[rank];
  if (mine.size() == 0) return rank;
  return static_cast<int>(
      std::find(spec.split.begin(), spec.split.end(), mine) -
      spec.split.begin());
}

Slice SliceOf(const ShardSpec& spec, const Shape& global, int rank) {
  CHECK_GT(global.rank(), 0);
  const bool matrix = global.rank() == 2;
  Slice slice{{0, matrix ? global[0] : 1}, {0, global[matrix ? 1 : 0]}};
  if (spec.layout != Layout::kSharded) return slice;
  CHECK_GE(spec.dim, 0);
  CHECK_LT(spec.dim, global.rank());
  CHECK_GE(rank, 0);
  CHECK_LT(rank, static_cast<int>(spec.split.size()));
  const Range& mine = spec.split[rank];
  CHECK(mine.begin >= 0 && mine.begin <= mine.end &&
        mine.end <= global[spec.dim])
      << "slice " << mine << " of dimension " << spec.dim << " of " << global;
  (matrix && spec.dim == 0 ? slice.rows : slice.cols) = mine;
  return slice;
}

Shape LocalShape(const ShardSpec& spec, const Shape& global, int rank) {
  const Slice slice = SliceOf(spec, global, rank);
  if (global.rank() == 1) return {slice.cols.size()};
  return {slice.rows.size(), slice.cols.size()};
}

LoraSpecs LoraSpecsFor(const ShardSpec& weight) {
  if (weight.layout != Layout::kSharded) return {weight, weight};
  if (weight.dim == 0) return {Replicated(), Sharded(0, weight.split)};
  return {Sharded(1, weight.split), Replicated()};
}

}  // namespace lorica
