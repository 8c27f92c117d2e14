// How the work of attention's backward pass is cut and how its scratch is laid
// out.
#ifndef LORICA_RUNTIME_CPU_ATTENTION_BACKWARD_PLAN_H_
#define LORICA_RUNTIME_CPU_ATTENTION_BACKWARD_PLAN_H_

#include <cstdint>
#include <vector>

#include "runtime/backend.h"
#include "runtime/cpu/attention/plan.h"
#include "runtime/shape.h"

namespace lorica::cpu {

// One segment and key/value head, with the query heads of its group.
struct BackwardUnit {
  int64_t segment;
  int64_t kv_head;
  int64_t blocks;            // Of queries.
  int64_t first_query_tile;  // Of block 0 of the group's first head.
  Range tasks;               // Of the wave.
};

// A block of queries of one head, packed once for all tasks.
struct QueryTile {
  int64_t unit;
  int64_t group_head;  // Among the heads of the group.
  int64_t block;
};

// Some key tiles of a unit over all the queries that see them, head after head
// of the group. A task owns dk and dv of its keys. Its term of dq is the whole
// where it has all the unit's keys, else it is kept and summed over the unit's
// tasks in order.
struct BackwardTask {
  int64_t unit;
  Range tiles;
  int64_t cost;         // Score tiles of a head.
  int64_t first_block;  // Of queries that see its keys.
  int64_t blocks;       // From there to the segment's end.
  int64_t first_dq;     // Where its dq of the group's first head is kept, in
                        // tiles, or kWhole.

  static constexpr int64_t kWhole = -1;
};

// Units whose queries are packed at the same time.
struct BackwardWave {
  std::vector<BackwardUnit> units;
  std::vector<QueryTile> query_tiles;
  std::vector<BackwardTask> tasks;  // A unit's tasks in order of their keys.
  std::vector<int64_t> order;       // Of tasks, costly ones first.
  int64_t dq_tiles = 0;             // Of all the tasks that keep theirs.
  int64_t most_blocks = 0;          // Of a task that keeps no dq.
  int64_t most_tiles = 0;           // Of a task.
};

std::vector<BackwardWave> PlanBackward(const AttentionArgs& args,
                                       const HeadShape& shape, int threads);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_ATTENTION_BACKWARD_PLAN_H_
