#include "launch/session.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Longer than any collective of a healthy run waits for its slowest rank.
constexpr absl::Duration kCollectiveTimeout = absl::Minutes(10);

// The ranks of a host share its cores.
int ThreadsOf(int wanted, const Placement& placement) {
  if (wanted > 0) return wanted;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, cores / placement.local_ranks);
}

absl::Status CheckDevice(DeviceKind device) {
  if (device != DeviceKind::kCuda) return absl::OkStatus();
  return absl::UnavailableError(
      "device is CUDA, which this build of lorica cannot drive; set it to CPU "
      "or AUTO");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Over(
    std::unique_ptr<Communicator> world, const Placement& placement,
    const MeshConfig& mesh, const CpuOptions& cpu) {
  auto session = std::unique_ptr<Session>(new Session());
  session->placement_ = placement;
  session->threads_ = cpu.threads;
  session->device_ = OpenCpuDevice(cpu);
  LORICA_ASSIGN_OR_RETURN(session->mesh_, Mesh::Create(mesh, std::move(world)));
  return session;
}

absl::StatusOr<std::unique_ptr<Session>> Session::Open(
    const MpiEnvironment& mpi, const MeshConfig& mesh, DeviceKind device,
    int threads) {
  auto watchdog = std::make_unique<Watchdog>(kCollectiveTimeout);
  std::unique_ptr<Communicator> world = mpi.World();
  world->SetWatchdog(watchdog.get());
  LORICA_RETURN_IF_ERROR(Agree(CheckDevice(device), *world));
  LORICA_ASSIGN_OR_RETURN(
      std::unique_ptr<Session> session,
      Over(std::move(world), mpi.placement(), mesh,
           {.threads = ThreadsOf(threads, mpi.placement())}));
  session->watchdog_ = std::move(watchdog);
  return session;
}

Session::~Session() = default;

}  // namespace lorica
