// The functions of NCCL that lorica calls. Communicators do not block: a call
// is under way until it is asked about, and only then does the stream have it.
// A call that a capture has meets the other ranks' at each launch of its graph,
// and there only the calls of the same capture.
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/dtype.h"
#include "tests/support/cuda_fakes/registrations.h"
#include "tests/support/cuda_fakes/timeline.h"
#include "tests/support/cuda_sim/simulator.h"

namespace {

using lorica::BFloat16;
using lorica::cuda_fakes::Lock;
using lorica::cuda_fakes::Meeting;
using lorica::cuda_fakes::Op;
using lorica::cuda_fakes::Region;
using lorica::cuda_fakes::Registrations;
using lorica::cuda_fakes::Stream;
using lorica::cuda_fakes::Timeline;

size_t BytesOf(ncclDataType_t type) { return type == ncclFloat32 ? 4 : 2; }

// One send or receive of a rank.
struct Message {
  int peer;
  void* data;
  size_t bytes;
};

// What one rank gives to a collective.
struct Part {
  std::string what;  // Equal on all ranks but for messages' sizes.
  const void* send = nullptr;
  void* receive = nullptr;
  size_t count = 0;
  ncclDataType_t type = ncclFloat32;
  std::vector<Message> sends;
  std::vector<Message> receives;
};

enum class Kind : uint8_t { kAllReduce, kAllGather, kReduceScatter, kMessages };

struct Collective {
  Kind kind;
  std::shared_ptr<Meeting> meeting;
  std::vector<Part> parts;
  size_t arrived = 0;
  bool mismatched = false;
  bool aborted = false;
};

struct Group {
  int size = 0;
  int joined = 0;
  std::map<int64_t, std::shared_ptr<Collective>> collectives;
};

// A call that NCCL has and the stream has not.
struct Deferred {
  std::thread::id caller;
  Kind kind;
  Part part;
  cudaStream_t stream;
};

}  // namespace

struct ncclComm {
  std::shared_ptr<Group> group;
  int rank = 0;
  int64_t calls = 0;
  int asked = 0;  // Since the last call.
  bool finalized = false;
  ncclResult_t error = ncclSuccess;
  std::vector<Deferred> deferred;
  int64_t captured = 0;  // Calls.
  // Shared with the nodes of captured calls.
  std::shared_ptr<int> in_graphs = std::make_shared<int>();
};

namespace {

std::map<std::string, std::shared_ptr<Group>>& Groups() {
  static auto* const groups = new std::map<std::string, std::shared_ptr<Group>>;
  return *groups;
}

// Communicators that others may still speak of.
std::vector<std::unique_ptr<ncclComm>>& Ended() {
  static auto* const ended = new std::vector<std::unique_ptr<ncclComm>>();
  return *ended;
}

float ValueAt(const void* data, ncclDataType_t type, size_t i) {
  return type == ncclFloat32
             ? static_cast<const float*>(data)[i]
             : static_cast<float>(static_cast<const BFloat16*>(data)[i]);
}

void Store(void* data, ncclDataType_t type, size_t i, float value) {
  if (type == ncclFloat32) {
    static_cast<float*>(data)[i] = value;
  } else {
    static_cast<BFloat16*>(data)[i] = BFloat16(value);
  }
}

// Element i of the sum over the ranks, in an order of its own: a ring's, which
// begins elsewhere for every chunk and rounds at each hop.
float RingSum(const std::vector<Part>& parts, size_t i) {
  const size_t start = i / 32 % parts.size();
  float sum = 0.0f;
  for (size_t r = 0; r < parts.size(); ++r) {
    const Part& part = parts[(start + r) % parts.size()];
    sum += ValueAt(part.send, part.type, i);
    if (part.type != ncclFloat32) sum = static_cast<float>(BFloat16(sum));
  }
  return sum;
}

void Written(void* data, size_t bytes) {
  lorica::cuda_sim::MarkWritten(data, bytes);
}

void RunSum(const std::vector<Part>& parts, Kind kind) {
  const size_t ranks = parts.size();
  const size_t count = parts[0].count * (kind == Kind::kAllReduce ? 1 : ranks);
  std::vector<float> sum(count);
  for (size_t i = 0; i < count; ++i) sum[i] = RingSum(parts, i);
  for (size_t r = 0; r < ranks; ++r) {
    const size_t first = kind == Kind::kAllReduce ? 0 : r * parts[r].count;
    for (size_t i = 0; i < parts[r].count; ++i) {
      Store(parts[r].receive, parts[r].type, i, sum[first + i]);
    }
    Written(parts[r].receive, parts[r].count * BytesOf(parts[r].type));
  }
}

void RunAllGather(const std::vector<Part>& parts) {
  const size_t bytes = parts[0].count * BytesOf(parts[0].type);
  for (const Part& to : parts) {
    for (size_t r = 0; r < parts.size(); ++r) {
      std::memmove(static_cast<char*>(to.receive) + r * bytes, parts[r].send,
                   bytes);
    }
    Written(to.receive, bytes * parts.size());
  }
}

void RunMessages(const std::vector<Part>& parts) {
  for (size_t from = 0; from < parts.size(); ++from) {
    std::map<int, size_t> used;  // Of each peer's receives from this rank.
    for (const Message& sent : parts[from].sends) {
      const Part& to = parts[static_cast<size_t>(sent.peer)];
      std::vector<const Message*> expected;
      for (const Message& m : to.receives) {
        if (m.peer == static_cast<int>(from)) expected.push_back(&m);
      }
      const size_t i = used[sent.peer]++;
      if (i >= expected.size() || expected[i]->bytes != sent.bytes) {
        Timeline::Get().Report("rank " + std::to_string(from) + " sends " +
                               std::to_string(sent.bytes) +
                               " bytes that rank " + std::to_string(sent.peer) +
                               " does not receive");
        continue;
      }
      std::memcpy(expected[i]->data, sent.data, sent.bytes);
      Written(expected[i]->data, sent.bytes);
    }
  }
  for (size_t to = 0; to < parts.size(); ++to) {
    for (const Message& m : parts[to].receives) {
      const auto& sends = parts[static_cast<size_t>(m.peer)].sends;
      if (std::none_of(sends.begin(), sends.end(), [&](const Message& sent) {
            return sent.peer == static_cast<int>(to);
          })) {
        Timeline::Get().Report("rank " + std::to_string(to) +
                               " waits for a message of rank " +
                               std::to_string(m.peer));
      }
    }
  }
}

void Run(const Collective& collective) {
  if (collective.aborted || collective.mismatched) return;
  switch (collective.kind) {
    case Kind::kAllReduce:
    case Kind::kReduceScatter:
      return RunSum(collective.parts, collective.kind);
    case Kind::kAllGather:
      return RunAllGather(collective.parts);
    case Kind::kMessages:
      return RunMessages(collective.parts);
  }
}

Op OpOf(const Deferred& call, int ranks) {
  Op op = {.name = call.part.what};
  const Part& part = call.part;
  const size_t bytes = part.count * BytesOf(part.type);
  const size_t all = bytes * static_cast<size_t>(ranks);
  if (part.send != nullptr) {
    op.reads = {{part.send, call.kind == Kind::kReduceScatter ? all : bytes}};
    op.writes = {{part.receive, call.kind == Kind::kAllGather ? all : bytes}};
  }
  for (const Message& m : part.sends) op.reads.push_back({m.data, m.bytes});
  for (const Message& m : part.receives) op.writes.push_back({m.data, m.bytes});
  return op;
}

// The call meets the other ranks' calls of this number when the operation runs.
void Arrive(ncclComm* comm, const Deferred& call, Op* op) {
  const int64_t number = comm->calls++;
  Group& group = *comm->group;
  std::shared_ptr<Collective>& collective = group.collectives[number];
  const auto ranks = static_cast<size_t>(group.size);
  const auto me = static_cast<size_t>(comm->rank);
  if (collective == nullptr) {
    collective = std::make_shared<Collective>();
    collective->kind = call.kind;
    collective->meeting = std::make_shared<Meeting>();
    collective->meeting->present.resize(ranks);
    collective->parts.resize(ranks);
    collective->meeting->run = [keep = collective] { Run(*keep); };
  }
  for (size_t peer = 0; peer < ranks; ++peer) {
    if (collective->parts[peer].what.empty() ||
        collective->parts[peer].what == call.part.what) {
      continue;
    }
    Timeline::Get().Report("rank " + std::to_string(me) + " calls " +
                           call.part.what + " where rank " +
                           std::to_string(peer) + " calls " +
                           collective->parts[peer].what + " (collective " +
                           std::to_string(number) + ")");
    collective->mismatched = true;
  }
  collective->parts[me] = call.part;
  const auto registered = [comm](const Region& region) {
    return Registrations::Get().Cover(comm, region);
  };
  if (std::all_of(op->reads.begin(), op->reads.end(), registered) &&
      std::all_of(op->writes.begin(), op->writes.end(), registered)) {
    Registrations::Get().CountCall();
  }
  if (!collective->aborted) op->meeting = collective->meeting;
  op->member = me;
  if (++collective->arrived < ranks) return;
  Timeline::Get().CountCollective();
  group.collectives.erase(number);
}

// Hands a call to the stream.
void Launch(ncclComm* comm, Deferred call) {
  auto* const stream = reinterpret_cast<Stream*>(call.stream);
  Op op = OpOf(call, comm->group->size);
  if (stream->capture == nullptr) {
    Arrive(comm, call, &op);
  } else {
    call.part.what += ", captured as " + std::to_string(comm->captured++);
    op.arrive = [comm, call, in_graph = comm->in_graphs](Op* copy) {
      Arrive(comm, call, copy);
    };
  }
  Timeline::Get().Add(stream, std::move(op));
}

ncclResult_t Defer(ncclComm* comm, Kind kind, Part part, cudaStream_t stream) {
  const auto lock = Lock();
  comm->deferred.push_back(
      {std::this_thread::get_id(), kind, std::move(part), stream});
  comm->asked = 0;
  return ncclInProgress;
}

std::string Words(const char* call, size_t count, ncclDataType_t type) {
  return std::string(call) + "(" + std::to_string(count) +
         (type == ncclFloat32 ? " F32)" : " BF16)");
}

// Messages between ncclGroupStart and ncclGroupEnd, of the calling thread.
struct OpenGroup {
  int depth = 0;
  ncclComm* comm = nullptr;
  cudaStream_t stream = nullptr;
  Part part;
};
thread_local OpenGroup open_group;

ncclResult_t AddMessage(ncclComm* comm, cudaStream_t stream,
                        const Message& message, bool sends) {
  if (open_group.depth == 0) return ncclInvalidUsage;  // Not what lorica does.
  open_group.comm = comm;
  open_group.stream = stream;
  (sends ? open_group.part.sends : open_group.part.receives).push_back(message);
  return ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int made = 0;
  const auto lock = Lock();
  *id = {};
  std::snprintf(id->internal, sizeof(id->internal), "fake %d", made++);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks,
                                    ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const auto lock = Lock();
  if (config->blocking != 0) return ncclInvalidUsage;
  std::shared_ptr<Group>& group = Groups()[id.internal];
  if (group == nullptr) group = std::make_shared<Group>();
  group->size = ranks;
  ++group->joined;
  *comm = new ncclComm{.group = group, .rank = rank};
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const auto lock = Lock();
  *error = comm->error;
  if (comm->error != ncclSuccess) return ncclSuccess;
  if (!Timeline::Get().settings().nccl_connects ||
      comm->group->joined < comm->group->size || ++comm->asked < 4) {
    *error = ncclInProgress;
    return ncclSuccess;
  }
  if (!comm->deferred.empty() &&
      comm->deferred[0].caller != std::this_thread::get_id()) {
    *error = ncclInProgress;  // A watchdog asks; the caller will.
    return ncclSuccess;
  }
  for (Deferred& call : std::exchange(comm->deferred, {})) {
    Launch(comm, std::move(call));
  }
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const auto lock = Lock();
  comm->finalized = true;
  comm->asked = 0;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const auto lock = Lock();
  if (!comm->finalized) {
    Timeline::Get().Report("ncclCommDestroy without ncclCommFinalize");
  }
  Registrations::Get().CheckNoneOf(comm);
  if (comm->in_graphs.use_count() > 1) {
    Timeline::Get().Report("ncclCommDestroy before a graph with its calls");
    Ended().emplace_back(comm);
  } else {
    delete comm;
  }
  return ncclSuccess;
}

// What waits for this rank, and what it waits for, ends without a result. The
// communicator stays, as other threads may still ask about it.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const auto lock = Lock();
  Ended().emplace_back(comm);
  comm->error = ncclRemoteError;
  for (auto& [number, collective] : comm->group->collectives) {
    collective->aborted = true;
    std::erase(collective->meeting->present, nullptr);
  }
  Timeline::Get().Progress();
  return ncclSuccess;
}

ncclResult_t ncclCommRegister(ncclComm_t comm, void* data, size_t bytes,
                              void** handle) {
  const auto lock = Lock();
  *handle = nullptr;
  if (comm->rank >= Timeline::Get().settings().nccl_registering_ranks) {
    return ncclSuccess;  // As with NCCL_LOCAL_REGISTER=0.
  }
  *handle =
      reinterpret_cast<void*>(Registrations::Get().Add(comm, {data, bytes}));
  return ncclSuccess;
}

ncclResult_t ncclCommDeregister(ncclComm_t comm, void* handle) {
  const auto lock = Lock();
  Registrations::Get().Remove(comm, reinterpret_cast<uintptr_t>(handle));
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "a remote rank failed" : "fake error";
}

const char* ncclGetLastError(ncclComm_t) { return "see the fakes' reports"; }

ncclResult_t ncclGroupStart() {
  ++open_group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (--open_group.depth > 0) return ncclSuccess;
  OpenGroup group = std::exchange(open_group, {});
  if (group.comm == nullptr) return ncclSuccess;
  group.part.what = "messages";
  // The caller asks the communicator what has become of them.
  return Defer(group.comm, Kind::kMessages, std::move(group.part),
               group.stream);
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type,
                      int peer, ncclComm_t comm, cudaStream_t stream) {
  return AddMessage(comm, stream,
                    {peer, const_cast<void*>(data), count * BytesOf(type)},
                    true);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return AddMessage(comm, stream, {peer, data, count * BytesOf(type)}, false);
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count,
                           ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
  if (op != ncclSum) return ncclInvalidArgument;
  return Defer(comm, Kind::kAllReduce,
               {.what = Words("ncclAllReduce", count, type),
                .send = send,
                .receive = receive,
                .count = count,
                .type = type},
               stream);
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t count,
                           ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return Defer(comm, Kind::kAllGather,
               {.what = Words("ncclAllGather", count, type),
                .send = send,
                .receive = receive,
                .count = count,
                .type = type},
               stream);
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count,
                               ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  if (op != ncclSum) return ncclInvalidArgument;
  return Defer(comm, Kind::kReduceScatter,
               {.what = Words("ncclReduceScatter", count, type),
                .send = send,
                .receive = receive,
                .count = count,
                .type = type},
               stream);
}

}  // extern "C"
