// How the ranks of a group hold one array, and how it moves between layouts.
//
//   kInvariant    every rank holds the value, and the whole of its gradient
//   kReplicated   every rank holds the value, and one term of its gradient
//   kSharded      every rank holds a slice of the value and of its gradient
//   kPartial      every rank holds one term of the value, and the whole
//   gradient
//
// A gradient therefore has the dual layout of its value: kReplicated and
// kPartial swap, the other two stay. So the backward of a transition a -> b is
// the transition Dual(b) -> Dual(a), and one table serves both directions:
//
//   transition                 collective        backward
//   kInvariant -> kReplicated  none              kPartial   -> kInvariant
//   kPartial   -> kInvariant   all-reduce        kInvariant -> kReplicated
//   kSharded   -> kReplicated  all-gather        kPartial   -> kSharded
//   kPartial   -> kSharded     reduce-scatter    kSharded   -> kReplicated
//   any layout -> itself       none              none
//
// Any other transition is a mistake, and fatal.
#ifndef LORICA_PARALLEL_LAYOUT_H_
#define LORICA_PARALLEL_LAYOUT_H_

#include <cstdint>
#include <ostream>

#include "parallel/communicator.h"
#include "runtime/tensor.h"

namespace lorica {

enum class Layout : uint8_t { kInvariant, kReplicated, kSharded, kPartial };

std::ostream& operator<<(std::ostream& out, Layout layout);

constexpr Layout Dual(Layout layout) {
  switch (layout) {
    case Layout::kReplicated:
      return Layout::kPartial;
    case Layout::kPartial:
      return Layout::kReplicated;
    default:
      return layout;
  }
}

struct Transition {
  Layout from;
  Layout to;
};

std::ostream& operator<<(std::ostream& out, Transition transition);

constexpr Transition Stay(Layout layout) { return {layout, layout}; }

// Returns `t` in the new layout. Consumes `t`: an all-reduce works in place.
// Slices are token rows: T rows over n ranks, the first T % n ranks holding one
// more. In a group of one rank all layouts are the same and nothing happens.
// `total_rows` is T of the whole array; only slices need it.
Tensor Redistribute(Tensor t, Transition transition, int64_t total_rows,
                    Communicator& group, Purpose purpose);

// Whether it has anything to do: rows that travel must be dense.
bool NeedsCollective(Transition transition, const Communicator& group);

// The backward of Redistribute: `grad` belongs to its result, the returned
// gradient to its argument.
Transition GradTransition(Transition transition);
Tensor RedistributeGrad(Tensor grad, Transition transition, int64_t total_rows,
                        Communicator& group, Purpose purpose);

}  // namespace lorica

#endif  // LORICA_PARALLEL_LAYOUT_H_
