// Ranks as threads of one process: tests, and programs started without
// mpirun.
#ifndef LORICA_PARALLEL_LOCAL_COMMUNICATOR_H_
#define LORICA_PARALLEL_LOCAL_COMMUNICATOR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/communicator.h"

namespace lorica {

struct LocalOptions {
  int64_t slot_bytes = 0;  // Longer messages are cut; 0: as fits the ranks.
};

// The communicators of a group of `ranks`, by rank, each for the thread that
// becomes the rank.
std::vector<std::unique_ptr<Communicator>> LocalCommunicators(
    int ranks, const LocalOptions& options = {});

// A group of this rank alone.
std::unique_ptr<Communicator> LoneCommunicator();

}  // namespace lorica

#endif  // LORICA_PARALLEL_LOCAL_COMMUNICATOR_H_
