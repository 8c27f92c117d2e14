// Ranks as processes started by mpirun or srun.
#ifndef LORICA_PARALLEL_MPI_COMMUNICATOR_H_
#define LORICA_PARALLEL_MPI_COMMUNICATOR_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace lorica {

// Where this process runs.
struct Placement {
  std::string host = "localhost";
  int host_number = 0;  // The lowest of MPI's ranks there; names may repeat.
  int hosts = 1;        // Of the whole run.
  int local_rank = 0;   // Among the ranks on this host.
  int local_ranks = 1;
};

// How ranks of one host talk: through memory they share, or as MPI sends
// messages, which is also the way between hosts.
enum class HostPath : uint8_t { kSharedMemory, kMessages };

// MPI for the life of the process: at most one at a time, and its communicators
// go first. All of MPI is called from the thread that starts it.
class MpiEnvironment {
 public:
  // A process that no launcher started does not touch MPI and is a run of one
  // rank. Error: the launcher started several processes, but MPI sees one.
  static absl::StatusOr<std::unique_ptr<MpiEnvironment>> Start();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  // All ranks of the run. Ranks of a host are neighbours, hosts in the order of
  // their first rank, so that tensor groups stay on a host where they fit;
  // under the usual placement these are MPI's own ranks.
  std::unique_ptr<Communicator> World(
      HostPath path = HostPath::kSharedMemory) const;
  const Placement& placement() const { return placement_; }

 private:
  explicit MpiEnvironment(bool started) : started_(started) {}

  bool started_;
  Placement placement_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_MPI_COMMUNICATOR_H_
