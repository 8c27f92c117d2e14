#include "runtime/cpu/attention/backward_plan.h"

#include <algorithm>
#include <numeric>

namespace lorica::cpu {
namespace {

// Tasks a thread should have in a wave, so that the last ones to end are short;
// and parts of a unit for each thread, as all but the first keep a dq.
constexpr int64_t kTasksPerThread = 6;
constexpr int64_t kPartsPerThread = 2;

// Query tiles from which on a wave is long enough: what is packed of so many,
// 8 MiB for heads of 64 in BF16, need not wait for others.
constexpr int64_t kTilesOfWave = 256;

int64_t CostOf(const Segment& segment, Range tiles) {
  const int64_t blocks = CountTiles(segment.num_queries);
  int64_t cost = 0;
  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    cost += blocks - FirstBlock(segment, tile);
  }
  return cost;
}

// Cuts the segment's key tiles into at most `parts` ranges of about equal cost.
std::vector<Range> CutTiles(const Segment& segment, int64_t parts) {
  const int64_t tiles = CountTiles(segment.num_keys);
  const int64_t blocks = CountTiles(segment.num_queries);
  const int64_t cost = CostOf(segment, {0, tiles});
  std::vector<Range> ranges;
  int64_t begin = 0;
  int64_t done = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    done += blocks - FirstBlock(segment, tile);
    const int64_t due = static_cast<int64_t>(ranges.size()) + 1;
    if (done * parts >= cost * due || tile + 1 == tiles) {
      ranges.push_back({begin, tile + 1});
      begin = tile + 1;
    }
  }
  return ranges;
}

// Adds the tasks of unit number `at`.
void AddTasks(const Segment& segment, int64_t at, int64_t parts,
              const HeadShape& shape, BackwardWave* wave) {
  const std::vector<Range> ranges = CutTiles(segment, parts);
  for (const Range& tiles : ranges) {
    const int64_t first = FirstBlock(segment, tiles.begin);
    BackwardTask task = {.unit = at,
                         .tiles = tiles,
                         .cost = CostOf(segment, tiles),
                         .first_block = first,
                         .blocks = CountTiles(segment.num_queries) - first,
                         .first_dq = BackwardTask::kWhole};
    if (ranges.size() > 1) {
      task.first_dq = wave->dq_tiles;
      wave->dq_tiles += shape.group * task.blocks;
    } else {
      wave->most_blocks = std::max(wave->most_blocks, task.blocks);
    }
    wave->most_tiles = std::max(wave->most_tiles, tiles.size());
    wave->tasks.push_back(task);
  }
}

// Cuts the wave's units into tasks.
void CutWave(const AttentionArgs& args, const HeadShape& shape, int threads,
             BackwardWave* wave) {
  const auto cost_of = [&](const BackwardUnit& unit) {
    const Segment& segment = args.segments[unit.segment];
    return CostOf(segment, {0, CountTiles(segment.num_keys)});
  };
  int64_t cost = 0;
  for (const BackwardUnit& unit : wave->units) cost += cost_of(unit);
  const int64_t wanted = threads * kTasksPerThread;
  const int64_t largest = std::max<int64_t>(1, (cost + wanted - 1) / wanted);
  const int64_t most_parts = threads == 1 ? 1 : threads * kPartsPerThread;
  for (int64_t at = 0; BackwardUnit & unit : wave->units) {
    const int64_t parts = (cost_of(unit) + largest - 1) / largest;
    unit.tasks.begin = static_cast<int64_t>(wave->tasks.size());
    AddTasks(args.segments[unit.segment], at++,
             std::clamp<int64_t>(parts, 1, most_parts), shape, wave);
    unit.tasks.end = static_cast<int64_t>(wave->tasks.size());
  }
  wave->order.resize(wave->tasks.size());
  std::iota(wave->order.begin(), wave->order.end(), int64_t{0});
  std::stable_sort(wave->order.begin(), wave->order.end(),
                   [&](int64_t a, int64_t b) {
                     return wave->tasks[static_cast<size_t>(a)].cost >
                            wave->tasks[static_cast<size_t>(b)].cost;
                   });
}

void AddUnit(int64_t segment, int64_t kv_head, int64_t blocks, int64_t group,
             BackwardWave* wave) {
  const auto unit = static_cast<int64_t>(wave->units.size());
  wave->units.push_back(
      {.segment = segment,
       .kv_head = kv_head,
       .blocks = blocks,
       .first_query_tile = static_cast<int64_t>(wave->query_tiles.size()),
       .tasks = {}});
  for (int64_t head = 0; head < group; ++head) {
    for (int64_t block = 0; block < blocks; ++block) {
      wave->query_tiles.push_back({unit, head, block});
    }
  }
}

}  // namespace

std::vector<BackwardWave> PlanBackward(const AttentionArgs& args,
                                       const HeadShape& shape, int threads) {
  std::vector<BackwardWave> waves;
  for (int64_t s = 0; s < args.segments.size; ++s) {
    if (args.segments[s].num_keys == 0) continue;
    const int64_t blocks = CountTiles(args.segments[s].num_queries);
    for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      if (waves.empty() ||
          static_cast<int64_t>(waves.back().query_tiles.size()) >=
              kTilesOfWave) {
        waves.emplace_back();
      }
      AddUnit(s, kv_head, blocks, shape.group, &waves.back());
    }
  }
  for (BackwardWave& wave : waves) CutWave(args, shape, threads, &wave);
  return waves;
}

}  // namespace lorica::cpu
