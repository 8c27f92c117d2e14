// Ranks as threads of a test.
#ifndef LORICA_TESTS_SUPPORT_RUN_RANKS_H_
#define LORICA_TESTS_SUPPORT_RUN_RANKS_H_

#include <functional>
#include <memory>

#include "parallel/communicator.h"
#include "parallel/local_communicator.h"
#include "runtime/device.h"

namespace lorica {

// Runs `body` once a rank, each in a thread with its own communicator of all
// ranks, and waits for all. A failed EXPECT or ASSERT in a rank is a failure of
// the test. A rank that returns while others still wait for it, as a failed
// ASSERT makes it, ends the process with a message instead of hanging it.
void RunRanks(
    int ranks,
    const std::function<void(std::unique_ptr<Communicator> world)>& body,
    const LocalOptions& options = {});

// A device for the calling rank, of which sanitizers see every block: a CPU of
// one thread unless SetTestDevice named another.
std::unique_ptr<Device> OpenTestDevice();
void SetTestDevice(std::unique_ptr<Device> (*open)());

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_RUN_RANKS_H_
