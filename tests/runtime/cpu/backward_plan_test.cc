#include "runtime/cpu/attention/backward_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/cpu/attention/plan.h"

namespace lorica::cpu {
namespace {

// Segments of `lengths` tokens with some heads; nothing is computed.
struct Call {
  std::vector<int64_t> lengths;
  int64_t kv_heads;
  int64_t group;
  std::vector<Segment> segments = {};

  AttentionArgs Args() {
    constexpr int64_t kHeadDim = 16;
    segments.clear();
    int64_t row = 0;
    for (const int64_t length : lengths) {
      segments.push_back({row, length, row, length});
      row += length;
    }
    AttentionArgs args;
    args.q.cols = kv_heads * group * kHeadDim;
    args.k.cols = kv_heads * kHeadDim;
    args.head_dim = kHeadDim;
    args.segments = {segments.data(), static_cast<int64_t>(segments.size())};
    return args;
  }
};

std::vector<Call> Calls() {
  return {{{8192}, 3, 3},
          {{512}, 3, 3},
          {{1, 70, 2048, 64, 65}, 2, 4},
          {std::vector<int64_t>(60, 5), 5, 1}};
}

using Tile = std::tuple<int64_t, int64_t, int64_t>;  // Segment, head, index.

TEST(BackwardPlanTest, EveryKeyTileIsOneTasksAndEveryQueryTileIsPackedOnce) {
  for (Call& call : Calls()) {
    const AttentionArgs args = call.Args();
    for (const int threads : {1, 2, 5}) {
      std::multiset<Tile> keys;
      std::multiset<Tile> queries;
      for (const BackwardWave& wave :
           PlanBackward(args, HeadShape(args), threads)) {
        ASSERT_EQ(wave.order.size(), wave.tasks.size());
        for (const int64_t at : wave.order) {
          const BackwardTask& task = wave.tasks[static_cast<size_t>(at)];
          const auto& unit = wave.units[static_cast<size_t>(task.unit)];
          EXPECT_LE(task.tiles.size(), wave.most_tiles);
          for (int64_t i = task.tiles.begin; i < task.tiles.end; ++i) {
            keys.insert({unit.segment, unit.kv_head, i});
          }
        }
        for (size_t i = 0; i < wave.query_tiles.size(); ++i) {
          const auto& [at, head, block] = wave.query_tiles[i];
          const BackwardUnit& unit = wave.units[static_cast<size_t>(at)];
          EXPECT_EQ(unit.first_query_tile + head * unit.blocks + block,
                    static_cast<int64_t>(i));
          queries.insert(
              {unit.segment, unit.kv_head * call.group + head, block});
        }
      }
      std::multiset<Tile> all_keys;
      std::multiset<Tile> all_queries;
      for (size_t s = 0; s < call.lengths.size(); ++s) {
        const auto segment = static_cast<int64_t>(s);
        for (int64_t i = 0; i < CountTiles(call.lengths[s]); ++i) {
          for (int64_t h = 0; h < call.kv_heads; ++h) {
            all_keys.insert({segment, h, i});
          }
          for (int64_t h = 0; h < call.kv_heads * call.group; ++h) {
            all_queries.insert({segment, h, i});
          }
        }
      }
      EXPECT_EQ(keys, all_keys);
      EXPECT_EQ(queries, all_queries);
    }
  }
}

TEST(BackwardPlanTest, KeptTermsOfDqLieBesideEachOther) {
  for (Call& call : Calls()) {
    const AttentionArgs args = call.Args();
    for (const BackwardWave& wave : PlanBackward(args, HeadShape(args), 3)) {
      std::map<int64_t, int64_t> kept;  // Begin to end, in tiles.
      for (const BackwardUnit& unit : wave.units) {
        for (int64_t at = unit.tasks.begin; at < unit.tasks.end; ++at) {
          const BackwardTask& task = wave.tasks[static_cast<size_t>(at)];
          const bool whole = task.first_dq == BackwardTask::kWhole;
          EXPECT_EQ(whole, unit.tasks.size() == 1);
          if (whole) {
            EXPECT_EQ(task.blocks, unit.blocks);
            EXPECT_LE(task.blocks, wave.most_blocks);
          } else {
            EXPECT_EQ(task.first_block + task.blocks, unit.blocks);
            kept[task.first_dq] = task.first_dq + call.group * task.blocks;
          }
        }
        const auto first =
            wave.tasks.begin() + static_cast<std::ptrdiff_t>(unit.tasks.begin);
        EXPECT_EQ(first->first_block, 0) << "the term that the sum starts from";
      }
      int64_t end = 0;
      for (const auto& [begin, past] : kept) {
        EXPECT_EQ(begin, end);
        end = past;
      }
      EXPECT_EQ(wave.dq_tiles, end);
    }
  }
}

// One that ends long after the others would leave threads idle; one more part
// of a unit would keep one more dq.
TEST(BackwardPlanTest, LongRecordsAreCutEvenlyAndNotTooOften) {
  Call call = {{8192}, 3, 3};
  const AttentionArgs args = call.Args();
  const std::vector<BackwardWave> waves =
      PlanBackward(args, HeadShape(args), 2);
  EXPECT_EQ(waves.size(), 3u) << "a key/value head each";
  for (const BackwardWave& wave : waves) {
    ASSERT_EQ(wave.tasks.size(), 4u);
    const auto [least, most] = std::minmax_element(
        wave.tasks.begin(), wave.tasks.end(),
        [](const auto& a, const auto& b) { return a.cost < b.cost; });
    EXPECT_LT(static_cast<double>(most->cost),
              1.1 * static_cast<double>(least->cost));
  }
}

}  // namespace
}  // namespace lorica::cpu
