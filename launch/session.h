// What a rank runs on: its place in the job, its device and its groups.
#ifndef LORICA_LAUNCH_SESSION_H_
#define LORICA_LAUNCH_SESSION_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "launch/device_choice.h"
#include "parallel/mesh.h"
#include "parallel/mpi_communicator.h"
#include "parallel/watchdog.h"
#include "runtime/device.h"

namespace lorica {

// Owns, in the order of creation: the watchdog, the device and the groups.
// Lives in the main thread until the end of the command.
class Session {
 public:
  // Errors: a mesh that does not match the number of ranks, a device that this
  // build or a rank has not, GPUs that do not find each other. `mpi` must
  // outlive the session. threads = 0: the cores of
  // this rank's share of its host, see cpu_share.h; the calling thread is bound
  // to the share where the launcher left that open.
  static absl::StatusOr<std::unique_ptr<Session>> Open(
      const MpiEnvironment& mpi, const MeshConfig& mesh,
      const DeviceOptions& device, int threads);
  // Of ranks that exist already, such as the threads of a test; unwatched.
  static absl::StatusOr<std::unique_ptr<Session>> Over(
      std::unique_ptr<Communicator> world, const Placement& placement,
      const MeshConfig& mesh, const CpuOptions& cpu);
  // The same on a device that is open. Its groups talk by NCCL if it is a GPU.
  static absl::StatusOr<std::unique_ptr<Session>> Over(
      std::unique_ptr<Device> device, std::unique_ptr<Communicator> world,
      const Placement& placement, const MeshConfig& mesh);
  ~Session();

  Device* device() const { return device_.get(); }
  const Mesh& mesh() const { return *mesh_; }
  const Placement& placement() const { return placement_; }
  int threads() const { return threads_; }
  // What a user should know of where the ranks run, a line each; the same on
  // every rank.
  absl::Span<const std::string> notes() const { return notes_; }
  // Whether this rank speaks for all.
  bool leads() const { return mesh_->world().rank() == 0; }

 private:
  Session() = default;

  Placement placement_;
  std::unique_ptr<Watchdog> watchdog_;
  std::unique_ptr<Device> device_;
  std::optional<Mesh> mesh_;
  int threads_ = 1;
  std::vector<std::string> notes_;
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_SESSION_H_
