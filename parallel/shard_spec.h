// How the tensor-parallel group holds one parameter: all that any code
// (allocation, initialization, loading, gradient sync, checkpoints) knows of
// the matter.
#ifndef LORICA_PARALLEL_SHARD_SPEC_H_
#define LORICA_PARALLEL_SHARD_SPEC_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "parallel/layout.h"
#include "runtime/shape.h"

namespace lorica {

// Even split of `units` over `ranks`: the first units % ranks ranks hold one
// more. Ranks beyond the units hold none.
Range SplitUnits(int64_t units, int rank, int ranks);

// The slice of a dimension each rank holds. Slices may differ in length, and
// ranks may share one (key/value heads under more ranks than heads); together
// they cover the dimension.
using Split = std::vector<Range>;

// `size` elements in units of `unit` (a divisor of size), split evenly.
Split SplitEvenly(int64_t size, int64_t unit, int ranks);

struct ShardSpec {
  Layout layout = Layout::kInvariant;  // kInvariant, kReplicated or kSharded.
  int dim = 0;                         // The dimension split, when sharded.
  Split split = {};                    // One range a rank, when sharded.
};

inline ShardSpec Invariant() { return {}; }
inline ShardSpec Replicated() { return {.layout = Layout::kReplicated}; }
inline ShardSpec Sharded(int dim, Split split) {
  return {.layout = Layout::kSharded, .dim = dim, .split = std::move(split)};
}

// The lowest rank that holds the same slice as `rank`: 0 where every rank holds
// the whole, `rank` itself where its slice is its own or empty.
int FirstHolder(const ShardSpec& spec, int rank);

// Whether every rank holds a term of the gradient, to be summed over the group.
// Ranks that share a slice of a sharded parameter hold terms of its gradient
// too: see grad_sync.h.
inline bool GradIsPartial(const ShardSpec& spec) {
  return spec.layout == Layout::kReplicated;
}

// The index ranges of `global` that `rank` holds: rows and columns of a matrix;
// a vector has one row.
struct Slice {
  Range rows;
  Range cols;
  friend bool operator==(const Slice&, const Slice&) = default;
};
Slice SliceOf(const ShardSpec& spec, const Shape& global, int rank);
Shape LocalShape(const ShardSpec& spec, const Shape& global, int rank);

// The splits of an adapter's factors A [R, I] and B [O, R], from that of their
// frozen weight W [O, I]: rows of W split (column parallel) gives A replicated
// and B split likewise; columns of W split (row parallel) gives A split
// likewise and B replicated; W whole gives both whole.
struct LoraSpecs {
  ShardSpec a;
  ShardSpec b;
};
LoraSpecs LoraSpecsFor(const ShardSpec& weight);

}  // namespace lorica

#endif  // LORICA_PARALLEL_SHARD_SPEC_H_
