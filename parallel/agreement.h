// One verdict for all ranks.
#ifndef LORICA_PARALLEL_AGREEMENT_H_
#define LORICA_PARALLEL_AGREEMENT_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace lorica {

// Whatever can fail on one rank (a file, memory, a device) is agreed on before
// anybody goes on: returns the status of the lowest rank that failed on every
// rank; OK if none did. Its message is led by "rank N: " unless all ranks
// failed.
absl::Status Agree(const absl::Status& mine, Communicator& group);

// The same for a result: `mine` if every rank has one.
template <typename T>
absl::StatusOr<T> AgreeOn(absl::StatusOr<T> mine, Communicator& group) {
  const absl::Status verdict = Agree(mine.status(), group);
  if (!verdict.ok()) return verdict;
  return mine;
}

}  // namespace lorica

#endif  // LORICA_PARALLEL_AGREEMENT_H_
