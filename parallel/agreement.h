// One verdict for all ranks.
#ifndef LORICA_PARALLEL_AGREEMENT_H_
#define LORICA_PARALLEL_AGREEMENT_H_

#include "absl/status/status.h"
#include "parallel/communicator.h"

namespace lorica {

// Whatever can fail on one rank (a file, memory, a device) is agreed on before
// anybody goes on: returns the status of the lowest rank that failed, its
// message led by "rank N: ", on every rank; OK if none did. In a group of one
// `mine` as it is.
absl::Status Agree(const absl::Status& mine, Communicator& group);

}  // namespace lorica

#endif  // LORICA_PARALLEL_AGREEMENT_H_
