// Which ranks see one directory, and which have each their own of that name.
#ifndef LORICA_LAUNCH_STATE_SHARED_DIRECTORY_H_
#define LORICA_LAUNCH_STATE_SHARED_DIRECTORY_H_

#include <string>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace lorica {

// The lowest rank of the group with which this rank shares `directory`, which
// exists on every rank: itself where the path lies on a disk of the host's own
// and no lower rank is on the host. Found by leaving a file a rank, for an
// instant. Agreed on by all ranks. Error: a file cannot be made.
absl::StatusOr<int> LeaderOfDirectory(const std::string& directory,
                                      Communicator& group);

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_SHARED_DIRECTORY_H_
