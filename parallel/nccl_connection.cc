#include "parallel/nccl_connection.h"

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/held_memory.h"
#include "runtime/cuda/launch.h"

namespace lorica {
namespace {

// A collective is enqueued within microseconds, and there are several in a
// layer; sleeping, of which the least lasts longer, is for openings.
constexpr absl::Duration kAwake = absl::Microseconds(200);
constexpr absl::Duration kPollPeriod = absl::Microseconds(50);

// What became of a call of a communicator that does not block.
ncclResult_t Await(ncclComm_t comm, ncclResult_t result, absl::Time deadline) {
  if (result != ncclInProgress) return result;
  const absl::Time awake_until = absl::Now() + kAwake;
  while (true) {
    const ncclResult_t asked = ncclCommGetAsyncError(comm, &result);
    if (asked != ncclSuccess) return asked;
    if (result != ncclInProgress) return result;
    const absl::Time now = absl::Now();
    if (now > deadline) return ncclInProgress;
    if (now < awake_until) {
      std::this_thread::yield();
    } else {
      absl::SleepFor(kPollPeriod);
    }
  }
}

// For calls that end at once.
void CheckNccl(ncclResult_t result, const char* call) {
  CHECK(result == ncclSuccess) << call << ": " << ncclGetErrorString(result);
}

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> Connection::Open(
    const ncclUniqueId& id, int rank, int size, absl::Duration timeout) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  auto connection = std::make_shared<Connection>();
  const absl::Time deadline = absl::Now() + timeout;
  ncclResult_t result =
      ncclCommInitRankConfig(&connection->comm_, size, id, rank, &config);
  result = Await(connection->comm_, result, deadline);
  if (result == ncclSuccess) return connection;
  connection->Abort();
  return absl::UnavailableError(
      result == ncclInProgress
          ? absl::StrCat("NCCL did not bring ", size, " ranks together within ",
                         absl::FormatDuration(timeout))
          : absl::StrCat("NCCL: ", ncclGetErrorString(result)));
}

Connection::~Connection() {
  for (const cudaEvent_t event : events_) CUDA_CHECK(cudaEventDestroy(event));
}

void Connection::Finish(ncclResult_t result, const char* call) {
  result = Await(comm_, result, absl::InfiniteFuture());
  CHECK(result == ncclSuccess) << call << ": " << ncclGetErrorString(result)
                               << ", " << ncclGetLastError(comm_);
}

void Connection::Close() {
  CHECK_EQ(registered_, 0) << "registered memory outlives its group";
  Finish(ncclCommFinalize(comm_), "ncclCommFinalize");
  const std::lock_guard lock(mutex_);
  closed_ = true;
  CheckNccl(ncclCommDestroy(comm_), "ncclCommDestroy");
}

void Connection::Abort() {
  const std::lock_guard lock(mutex_);
  if (comm_ != nullptr && !closed_) ncclCommAbort(comm_);
  closed_ = true;
}

ncclResult_t Connection::AsyncError() const {
  const std::lock_guard lock(mutex_);
  if (closed_) return ncclSuccess;
  ncclResult_t error = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &error);
  return asked == ncclSuccess ? error : asked;
}

bool Connection::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

cudaEvent_t Connection::TakeEvent() {
  const std::lock_guard lock(mutex_);
  if (events_.empty()) {
    cudaEvent_t event = nullptr;
    CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
  }
  const cudaEvent_t event = events_.back();
  events_.pop_back();
  return event;
}

void Connection::GiveBack(cudaEvent_t event) {
  const std::lock_guard lock(mutex_);
  events_.push_back(event);
}

std::shared_ptr<RegisteredMemory> RegisteredMemory::Allocate(
    std::shared_ptr<Connection> connection, size_t bytes, Queue* queue,
    cudaStream_t communication) {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess ||
      version < NCCL_VERSION(2, 19, 0)) {
    return nullptr;
  }
  std::shared_ptr<RegisteredMemory> memory(new RegisteredMemory());
  if (ncclMemAlloc(&memory->data_, bytes) != ncclSuccess) {
    cudaGetLastError();  // Or the next launch would report it.
    return nullptr;
  }
  memory->queue_ = queue;
  memory->communication_ = communication;
  memory->bytes_ = bytes;
  memory->connection_ = std::move(connection);
  cuda::CountHeldMemory(queue, static_cast<int64_t>(bytes));
  Connection& to = *memory->connection_;
  if (ncclCommRegister(to.comm(), memory->data_, bytes, &memory->handle_) !=
          ncclSuccess ||
      memory->handle_ == nullptr) {
    memory->handle_ = nullptr;
    return nullptr;
  }
  ++to.registered_;
  return memory;
}

RegisteredMemory::~RegisteredMemory() {
  if (data_ == nullptr) return;
  CUDA_CHECK(cudaStreamSynchronize(cuda::StreamOf(queue_)));
  CUDA_CHECK(cudaStreamSynchronize(communication_));
  if (handle_ != nullptr) {
    --connection_->registered_;
    if (!connection_->closed()) {
      CheckNccl(ncclCommDeregister(connection_->comm(), handle_),
                "ncclCommDeregister");
    }
  }
  CheckNccl(ncclMemFree(data_), "ncclMemFree");
  cuda::CountHeldMemory(queue_, -static_cast<int64_t>(bytes_));
}

}  // namespace lorica
