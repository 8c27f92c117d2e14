#include "launch/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "launch/device_choice.h"
#include "launch/train/stop_signals.h"
#include "parallel/agreement.h"
#include "parallel/cpu_share.h"
#include "parallel/nccl_communicator.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr size_t kMostHostsNoted = 8;

// Before the first step, so that what fails is said by all ranks.
absl::Status OpenGpuCollectives(const Mesh& mesh) {
  for (Communicator* group : {&mesh.tensor(), &mesh.data()}) {
    LORICA_RETURN_IF_ERROR(
        Agree(group->OpenDeviceCollectivesNow(), mesh.world()));
  }
  return absl::OkStatus();
}

// Every rank's numbers, by rank.
std::vector<std::vector<int>> AllGather(const std::vector<int>& mine,
                                        Communicator& world) {
  std::vector<std::vector<int>> all;
  for (const std::string& bytes : world.AllGatherBytes(
           std::string(reinterpret_cast<const char*>(mine.data()),
                       mine.size() * sizeof(int)),
           Purpose::kControl)) {
    std::vector<int>& numbers = all.emplace_back(bytes.size() / sizeof(int));
    if (!numbers.empty()) {
      std::memcpy(numbers.data(), bytes.data(), bytes.size());
    }
  }
  return all;
}

// The part of its host that this rank takes, agreed on with the other ranks
// there. `wanted` threads, 0: one a core.
CpuShare TakeShare(const Placement& placement, int wanted,
                   Communicator& world) {
  const HostCpus host = SeeHost();
  const auto hosts = AllGather({placement.host_number}, world);
  const auto masks = AllGather(host.started_on, world);
  std::vector<Cpus> started_on;
  int place = 0;
  for (int peer = 0; peer < world.size(); ++peer) {
    if (hosts[peer][0] != placement.host_number) continue;
    if (peer == world.rank()) place = static_cast<int>(started_on.size());
    started_on.push_back(masks[peer]);
  }
  CpuShare share = ShareOf(host, started_on, place);
  if (wanted > 0) share.threads = wanted;
  if (share.bind) BindTo(share.cpus);
  return share;
}

// "node7: rank 0 on CPUs 0-7, rank 1 on CPUs 8-15, 8 threads each", a line a
// host. Ranks on the same CPUs are told together.
std::vector<std::string> NotesOnHosts(const Placement& placement,
                                      const CpuShare& share,
                                      Communicator& world) {
  std::vector<int> mine = {placement.host_number, share.threads};
  mine.insert(mine.end(), share.cpus.begin(), share.cpus.end());
  const auto numbers = AllGather(mine, world);
  const auto names = world.AllGatherBytes(placement.host, Purpose::kControl);
  std::vector<int> hosts;
  std::vector<std::string> notes;
  for (int rank = 0; rank < world.size(); ++rank) {
    const int host = numbers[rank][0];
    if (std::find(hosts.begin(), hosts.end(), host) != hosts.end()) continue;
    hosts.push_back(host);
    if (hosts.size() > kMostHostsNoted) continue;
    std::vector<std::pair<Cpus, Cpus>> groups;  // CPUs, and the ranks there.
    for (int peer = rank; peer < world.size(); ++peer) {
      if (numbers[peer][0] != host) continue;
      const Cpus cpus(numbers[peer].begin() + 2, numbers[peer].end());
      if (groups.empty() || groups.back().first != cpus) {
        groups.push_back({cpus, {}});
      }
      groups.back().second.push_back(peer);
    }
    std::string note = absl::StrCat(names[rank], ":");
    for (const auto& [cpus, ranks] : groups) {
      absl::StrAppend(&note, ranks.size() > 1 ? " ranks " : " rank ",
                      RangesOf(ranks), " on CPUs ", RangesOf(cpus), ",");
    }
    const int threads = numbers[rank][1];
    absl::StrAppend(&note, " ", threads, threads == 1 ? " thread" : " threads",
                    " each");
    notes.push_back(std::move(note));
  }
  if (hosts.size() > kMostHostsNoted) {
    notes.push_back(
        absl::StrCat("and ", hosts.size() - kMostHostsNoted, " more hosts"));
  }
  return notes;
}

void AddNoteOnTensorGroups(const Mesh& mesh, const MeshConfig& config,
                           std::vector<std::string>* notes) {
  const int spread = mesh.spread_tensor_groups();
  if (spread == 0) return;
  notes->push_back(absl::StrCat(
      spread, " of ", config.data, " tensor groups have ranks on several ",
      "hosts, so activations cross the network in every layer; start a ",
      "multiple of mesh.tensor = ", config.tensor,
      " ranks on each host, or lower mesh.tensor"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Over(
    std::unique_ptr<Communicator> world, const Placement& placement,
    const MeshConfig& mesh, const CpuOptions& cpu) {
  LORICA_ASSIGN_OR_RETURN(
      std::unique_ptr<Session> session,
      Over(OpenCpuDevice(cpu), std::move(world), placement, mesh));
  session->threads_ = cpu.threads;
  return session;
}

absl::StatusOr<std::unique_ptr<Session>> Session::Over(
    std::unique_ptr<Device> device, std::unique_ptr<Communicator> world,
    const Placement& placement, const MeshConfig& mesh) {
  auto session = std::unique_ptr<Session>(new Session());
  session->placement_ = placement;
  session->device_ = std::move(device);
  const bool on_gpu = session->device_->backend().memory == Memory::kDevice;
  if (on_gpu) {
    const SumOrder others =
        mesh.deterministic ? SumOrder::kTree : SumOrder::kFastest;
    world->SetDeviceCollectives(NcclCollectives(), {.others = others});
  }
  LORICA_ASSIGN_OR_RETURN(session->mesh_, Mesh::Create(mesh, std::move(world),
                                                       placement.host_number));
  if (on_gpu) LORICA_RETURN_IF_ERROR(OpenGpuCollectives(*session->mesh_));
  return session;
}

absl::StatusOr<std::unique_ptr<Session>> Session::Open(
    const MpiEnvironment& mpi, const MeshConfig& mesh,
    const DeviceOptions& device, int threads) {
  auto watchdog =
      std::make_unique<Watchdog>(absl::Seconds(mesh.timeout_seconds),
                                 [] { return StopSignals::Received() != 0; });
  std::unique_ptr<Communicator> world = mpi.World();
  world->SetWatchdog(watchdog.get());
  const CpuShare share = TakeShare(mpi.placement(), threads, *world);
  LORICA_ASSIGN_OR_RETURN(
      ChosenDevice chosen,
      OpenDevice(device, mpi.placement(), {.threads = share.threads}, *world));
  LORICA_ASSIGN_OR_RETURN(
      std::unique_ptr<Session> session,
      Over(std::move(chosen.device), std::move(world), mpi.placement(), mesh));
  session->threads_ = share.threads;
  session->watchdog_ = std::move(watchdog);
  session->notes_ =
      NotesOnHosts(mpi.placement(), share, session->mesh_->world());
  AddNoteOnTensorGroups(*session->mesh_, mesh, &session->notes_);
  if (!chosen.gpu.empty()) {
    session->notes_.push_back(
        absl::StrCat("each rank computes on a GPU of its "
                     "own, the first on ",
                     chosen.gpu));
  } else if (!chosen.why_cpu.empty()) {
    session->notes_.push_back(
        absl::StrCat("computing on CPUs: ", chosen.why_cpu));
  }
  return session;
}

Session::~Session() = default;

}  // namespace lorica
