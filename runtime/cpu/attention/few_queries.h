// Attention of segments of a few queries, as generation brings them: a pass
// over the cached keys and values at memory speed, row by row of q.
#ifndef LORICA_RUNTIME_CPU_ATTENTION_FEW_QUERIES_H_
#define LORICA_RUNTIME_CPU_ATTENTION_FEW_QUERIES_H_

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/shape.h"

namespace lorica::cpu {

struct Queue;

// Longer segments are not looked at here.
inline constexpr int64_t kFewQueries = 4;
void AttendFewQuerySegments(Queue* queue, const AttentionArgs& args);

// The keys are cut into ranges that stay in the cache from head to head and
// are shared out to the threads.
inline constexpr int64_t kKeysPerRange = 256;

// One row of q against a range of keys of one key/value head.
struct FewQueries {
  const AttentionArgs* args;
  int64_t query;    // Row of q.
  int64_t kv_head;  // Serves the `group` query heads from kv_head * group on.
  int64_t group;
  Range keys;  // Rows of k and v, at most kKeysPerRange.
};

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_ATTENTION_FEW_QUERIES_H_
