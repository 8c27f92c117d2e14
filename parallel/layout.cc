#include "parallel/layout.h"

#include <utility>
#include <vector>

#include "parallel/shard_spec.h"
#include "runtime/check.h"

namespace lorica {
namespace {

std::vector<int64_t> RowsByRank(int64_t total_rows, int ranks) {
  std::vector<int64_t> rows(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    rows[rank] = SplitUnits(total_rows, rank, ranks).size();
  }
  return rows;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, Layout layout) {
  switch (layout) {
    case Layout::kInvariant:
      return out << "invariant";
    case Layout::kReplicated:
      return out << "replicated";
    case Layout::kSharded:
      return out << "sharded";
    case Layout::kPartial:
      return out << "partial";
  }
  return out << "?";
}

std::ostream& operator<<(std::ostream& out, Transition transition) {
  return out << transition.from << " -> " << transition.to;
}

bool NeedsCollective(Transition transition, const Communicator& group) {
  return group.size() > 1 && transition.from != transition.to &&
         !(transition.from == Layout::kInvariant &&
           transition.to == Layout::kReplicated);
}

Tensor Redistribute(Tensor t, Transition transition, int64_t total_rows,
                    Communicator& group, Purpose purpose) {
  const auto is = [&](Layout from, Layout to) {
    return transition.from == from && transition.to == to;
  };
  if (!NeedsCollective(transition, group)) return t;
  if (is(Layout::kPartial, Layout::kInvariant)) {
    group.AllReduceSum(&t, purpose);
    return t;
  }
  const std::vector<int64_t> rows = RowsByRank(total_rows, group.size());
  if (is(Layout::kSharded, Layout::kReplicated)) {
    return group.AllGatherRows(t, rows, purpose);
  }
  if (is(Layout::kPartial, Layout::kSharded)) {
    return group.ReduceScatterRows(t, rows, purpose);
  }
  LOG(FATAL) << "no transition " << transition;
}

Transition GradTransition(Transition transition) {
  return {Dual(transition.to), Dual(transition.from)};
}

Tensor RedistributeGrad(Tensor grad, Transition transition, int64_t total_rows,
                        Communicator& group, Purpose purpose) {
  return Redistribute(std::move(grad), GradTransition(transition), total_rows,
                      group, purpose);
}

}  // namespace lorica
