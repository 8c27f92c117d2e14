// Ranks' GPUs, which talk by NCCL.
#ifndef LORICA_PARALLEL_NCCL_COMMUNICATOR_H_
#define LORICA_PARALLEL_NCCL_COMMUNICATOR_H_

#include "absl/time/time.h"
#include "parallel/device_collectives.h"

namespace lorica {

struct NcclOptions {
  // How long ranks may take to find each other.
  absl::Duration open_timeout = absl::Minutes(2);
};

// Opens one communicator of NCCL for each group that asks, for tensors of the
// calling thread's GPU; null where this build has no NCCL. Errors: a rank does
// not come in time, what NCCL itself reports.
//
// A collective runs on a stream of the group's own: it waits for what the
// device's queue was given before, and what the queue is given afterwards waits
// for it. Errors of peers and of the network that show later are told to the
// watchdog. A sum that is started leaves the device's queue alone: its terms
// are added in the group's stream as well. Under SumOrder::kTree the ranks
// exchange chunks, each sums its own in the tree of tree_sum.h with the
// device's ops, and the sums are gathered: 2 (n - 1) / n of the array sent by
// each of n ranks, as a ring would.
//
// Calls can be recorded with the work around them (runtime/recording.h): the
// stream follows the device's into the capture and back by the same events. The
// recordings must go before the group.
OpenDeviceCollectives NcclCollectives(const NcclOptions& options = {});

}  // namespace lorica

#endif  // LORICA_PARALLEL_NCCL_COMMUNICATOR_H_
