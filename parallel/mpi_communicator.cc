#include "parallel/mpi_communicator.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "parallel/local_communicator.h"
#include "parallel/shared_transport.h"
#include "runtime/check.h"

namespace lorica {
namespace {

void CheckMpi(int code, const char* call, const char* file, int line) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  LOG(FATAL) << "rank " << rank << ": " << call << ": " << text << " (" << file
             << ":" << line << ")";
}

#define MPI_CHECK(call) CheckMpi(call, #call, __FILE__, __LINE__)

// A communicator of MPI that is freed with its last owner.
using Group = std::shared_ptr<const MPI_Comm>;

Group Own(MPI_Comm comm) {
  MPI_CHECK(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
  return {new MPI_Comm(comm), [](const MPI_Comm* owned) {
            MPI_Comm freed = *owned;
            MPI_Comm_free(&freed);
            delete owned;
          }};
}

int RankIn(MPI_Comm comm) {
  int rank = 0;
  MPI_CHECK(MPI_Comm_rank(comm, &rank));
  return rank;
}

int SizeOf(MPI_Comm comm) {
  int size = 0;
  MPI_CHECK(MPI_Comm_size(comm, &size));
  return size;
}

Group SplitGroup(const Group& group, int color, int key) {
  MPI_Comm part;
  MPI_CHECK(MPI_Comm_split(*group, color, key, &part));
  return Own(part);
}

// The ranks of a group that share this host's memory, in the group's order.
Group HostGroup(const Group& group) {
  MPI_Comm host;
  MPI_CHECK(MPI_Comm_split_type(*group, MPI_COMM_TYPE_SHARED, RankIn(*group),
                                MPI_INFO_NULL, &host));
  return Own(host);
}

std::unique_ptr<Transport> OpenTransport(Group group, HostPath path);

// Point-to-point messages: they have addresses and sizes of their own, where
// MPI's collectives count and displace in 31 bits from one base, and they tell
// who is waited for. Each goes straight from who has the bytes to who wants
// them, so that a rank that waits is never taken for the one it waits for.
class MessageTransport : public Transport {
 public:
  explicit MessageTransport(Group group)
      : Transport(RankIn(*group), SizeOf(*group)),
        group_(std::move(group)),
        unfinished_(static_cast<size_t>(size())) {}

  std::vector<const void*> Exchange(absl::Span<const void* const> send,
                                    absl::Span<const int64_t> bytes) override;
  int64_t max_exchange_bytes() const override { return kMaxExchangeBytes; }
  void AllGather(void* data, absl::Span<const int64_t> bytes) override;
  void Broadcast(void* data, int64_t bytes, int root) override;
  void Barrier() override;
  std::unique_ptr<Transport> Split(int color, int key) override {
    return OpenTransport(SplitGroup(group_, color, key), HostPath::kMessages);
  }
  std::vector<int> Missing() const override;

 private:
  static constexpr int64_t kMaxExchangeBytes = int64_t{64} << 20;
  static constexpr int64_t kMaxMessageBytes = int64_t{1} << 30;
  static constexpr int kTag = 1;

  // Long arrays travel as several messages, in order.
  void Receive(void* data, int64_t bytes, int from);
  void Send(const void* data, int64_t bytes, int to);
  // The request of a new message.
  MPI_Request* Begin(int peer);
  void Finish();

  Group group_;
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;  // Of each request.
  // Messages from and to each peer that are not done.
  std::vector<std::atomic<int>> unfinished_;
  std::vector<char> received_;
};

MPI_Request* MessageTransport::Begin(int peer) {
  peers_.push_back(peer);
  unfinished_[peer].fetch_add(1, std::memory_order_relaxed);
  return &requests_.emplace_back();
}

void MessageTransport::Receive(void* data, int64_t bytes, int from) {
  for (int64_t begin = 0; begin < bytes; begin += kMaxMessageBytes) {
    const int64_t part = std::min(kMaxMessageBytes, bytes - begin);
    MPI_CHECK(MPI_Irecv(static_cast<char*>(data) + begin,
                        static_cast<int>(part), MPI_BYTE, from, kTag, *group_,
                        Begin(from)));
  }
}

void MessageTransport::Send(const void* data, int64_t bytes, int to) {
  for (int64_t begin = 0; begin < bytes; begin += kMaxMessageBytes) {
    const int64_t part = std::min(kMaxMessageBytes, bytes - begin);
    MPI_CHECK(MPI_Isend(static_cast<const char*>(data) + begin,
                        static_cast<int>(part), MPI_BYTE, to, kTag, *group_,
                        Begin(to)));
  }
}

void MessageTransport::Finish() {
  const int total = static_cast<int>(requests_.size());
  std::vector<int> finished(requests_.size());
  for (int left = total; left > 0;) {
    int count = 0;
    MPI_CHECK(MPI_Waitsome(total, requests_.data(), &count, finished.data(),
                           MPI_STATUSES_IGNORE));
    for (int i = 0; i < count; ++i) {
      unfinished_[peers_[finished[i]]].fetch_sub(1, std::memory_order_relaxed);
    }
    left -= count;
  }
  requests_.clear();
  peers_.clear();
}

std::vector<int> MessageTransport::Missing() const {
  std::vector<int> missing;
  for (int peer = 0; peer < size(); ++peer) {
    if (unfinished_[peer].load(std::memory_order_relaxed) > 0) {
      missing.push_back(peer);
    }
  }
  return missing;
}

std::vector<const void*> MessageTransport::Exchange(
    absl::Span<const void* const> send, absl::Span<const int64_t> bytes) {
  const int64_t mine = bytes[rank()];
  received_.resize(static_cast<size_t>(mine * size()));
  std::vector<const void*> received(size());
  received[rank()] = send[rank()];
  for (int step = 1; step < size(); ++step) {
    const int from = (rank() + size() - step) % size();
    char* place = received_.data() + from * mine;
    received[from] = place;
    Receive(place, mine, from);
  }
  // Everyone starts with another receiver.
  for (int step = 1; step < size(); ++step) {
    const int to = (rank() + step) % size();
    Send(send[to], bytes[to], to);
  }
  Finish();
  return received;
}

void MessageTransport::AllGather(void* data, absl::Span<const int64_t> bytes) {
  std::vector<char*> places(size());
  char* place = static_cast<char*>(data);
  for (int peer = 0; peer < size(); place += bytes[peer], ++peer) {
    places[peer] = place;
  }
  for (int step = 1; step < size(); ++step) {
    const int from = (rank() + size() - step) % size();
    Receive(places[from], bytes[from], from);
  }
  for (int step = 1; step < size(); ++step) {
    Send(places[rank()], bytes[rank()], (rank() + step) % size());
  }
  Finish();
}

void MessageTransport::Broadcast(void* data, int64_t bytes, int root) {
  if (rank() == root) {
    for (int step = 1; step < size(); ++step) {
      Send(data, bytes, (rank() + step) % size());
    }
  } else {
    Receive(data, bytes, root);
  }
  Finish();
}

void MessageTransport::Barrier() {
  std::vector<char> come(static_cast<size_t>(size()));
  AllGather(come.data(), std::vector<int64_t>(size(), 1));
}

// Processes of one host.
class HostTransport : public SharedTransport {
 public:
  HostTransport(Group group, SharedSegments segments)
      : SharedTransport(RankIn(*group), std::move(segments),
                        [group] { Progress(*group); }),
        group_(std::move(group)) {}

  std::unique_ptr<Transport> Split(int color, int key) override {
    return OpenTransport(SplitGroup(group_, color, key),
                         HostPath::kSharedMemory);
  }

 private:
  // A peer may be late because it waits for a message this rank has handed to
  // MPI, and MPI sends only when called.
  static void Progress(MPI_Comm comm) {
    int found = 0;
    MPI_CHECK(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &found,
                         MPI_STATUS_IGNORE));
  }

  Group group_;
};

// A shared segment a rank, or none if the host has no room for them. All ranks
// of `host` call it and fare alike.
SharedSegments MapSegments(const Group& host) {
  const int ranks = SizeOf(*host);
  SharedSegments segments;
  segments.slot_bytes = SharedTransport::SlotBytes(ranks);
  const MPI_Aint bytes =
      SharedTransport::SegmentBytes(segments.slot_bytes) + 64;
  void* mine = nullptr;
  MPI_Win window = MPI_WIN_NULL;
  const int code =
      MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, *host, &mine, &window);
  int failed = code != MPI_SUCCESS;
  MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, *host));
  if (failed) {
    LOG_IF(WARNING, RankIn(*host) == 0)
        << "no shared memory for " << ranks << " ranks of " << bytes
        << " bytes each; they use messages instead";
    return {};
  }
  segments.owner = std::shared_ptr<const void>(
      new MPI_Win(window), [host](const void* owned) {
        MPI_Win freed = *static_cast<const MPI_Win*>(owned);
        MPI_Win_free(&freed);
        delete static_cast<const MPI_Win*>(owned);
      });
  for (int rank = 0; rank < ranks; ++rank) {
    MPI_Aint segment_bytes = 0;
    int unit = 0;
    void* segment = nullptr;
    MPI_CHECK(
        MPI_Win_shared_query(window, rank, &segment_bytes, &unit, &segment));
    // The mappings of the ranks agree on addresses modulo a page.
    const uintptr_t address = reinterpret_cast<uintptr_t>(segment);
    segments.by_rank.push_back(static_cast<char*>(segment) +
                               (64 - address % 64) % 64);
  }
  SharedTransport::PrepareSegment(segments.by_rank[RankIn(*host)]);
  MPI_CHECK(MPI_Barrier(*host));
  return segments;
}

std::unique_ptr<Transport> OpenTransport(Group group, HostPath path) {
  const int size = SizeOf(*group);
  if (path == HostPath::kSharedMemory && size > 1) {
    const Group host = HostGroup(group);
    int together = SizeOf(*host) == size;
    MPI_CHECK(
        MPI_Allreduce(MPI_IN_PLACE, &together, 1, MPI_INT, MPI_MIN, *group));
    if (together) {
      SharedSegments segments = MapSegments(host);
      if (!segments.by_rank.empty()) {
        return std::make_unique<HostTransport>(std::move(group),
                                               std::move(segments));
      }
    }
  }
  return std::make_unique<MessageTransport>(std::move(group));
}

// Whether a launcher that MPI understands started this process: mpirun of Open
// MPI, a PMIx server (srun --mpi=pmix, prun), or PMI (srun --mpi=pmi2, MPICH).
bool Launched() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

// The number of processes srun started in this step; 1 outside a step.
int SlurmStepTasks() {
  const char* text = std::getenv("SLURM_STEP_NUM_TASKS");
  int tasks = 1;
  return text != nullptr && absl::SimpleAtoi(text, &tasks) ? tasks : 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MpiEnvironment>> MpiEnvironment::Start() {
  const bool launched = Launched();
  std::unique_ptr<MpiEnvironment> environment(new MpiEnvironment(launched));
  int size = 1;
  if (launched) {
    int provided = 0;
    MPI_CHECK(
        MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
    MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    if (provided < MPI_THREAD_FUNNELED) {
      return absl::FailedPreconditionError(
          "this MPI allows no threads beside it (MPI_THREAD_FUNNELED)");
    }
    size = SizeOf(MPI_COMM_WORLD);
  }
  if (size == 1 && SlurmStepTasks() > 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "srun started ", SlurmStepTasks(),
        " tasks that do not know of each other; start them with "
        "srun --mpi=pmix or pmi2 (srun --mpi=list shows what there is)"));
  }
  char host[256] = "";
  if (gethostname(host, sizeof(host) - 1) == 0) {
    environment->placement_.host = host;
  }
  if (launched) {
    MPI_Comm copy;
    MPI_CHECK(MPI_Comm_dup(MPI_COMM_WORLD, &copy));
    const Group local = HostGroup(Own(copy));
    Placement& placement = environment->placement_;
    placement.local_rank = RankIn(*local);
    placement.local_ranks = SizeOf(*local);
    placement.host_number = RankIn(MPI_COMM_WORLD);
    MPI_CHECK(MPI_Bcast(&placement.host_number, 1, MPI_INT, 0, *local));
    placement.hosts = placement.local_rank == 0 ? 1 : 0;
    MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, &placement.hosts, 1, MPI_INT, MPI_SUM,
                            MPI_COMM_WORLD));
  }
  return environment;
}

MpiEnvironment::~MpiEnvironment() {
  if (started_) MPI_CHECK(MPI_Finalize());
}

std::unique_ptr<Communicator> MpiEnvironment::World(HostPath path) const {
  if (!started_) return LoneCommunicator();
  MPI_Comm copy;
  MPI_CHECK(MPI_Comm_dup(MPI_COMM_WORLD, &copy));
  const Group world = Own(copy);
  return std::make_unique<Communicator>(
      OpenTransport(SplitGroup(world, 0, placement_.host_number), path));
}

}  // namespace lorica
