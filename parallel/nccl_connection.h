// A communicator of NCCL from its opening to its end, and memory registered
// with it.
#ifndef LORICA_PARALLEL_NCCL_CONNECTION_H_
#define LORICA_PARALLEL_NCCL_CONNECTION_H_

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/backend.h"

namespace lorica {

// Outlives its group where a watchdog still holds work. Any thread may ask for
// errors, take events and abort; all else is the rank's thread's.
class Connection {
 public:
  // Errors are those of NCCL and a timeout.
  static absl::StatusOr<std::shared_ptr<Connection>> Open(
      const ncclUniqueId& id, int rank, int size, absl::Duration timeout);
  Connection() = default;
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  ncclComm_t comm() const { return comm_; }
  // Whether a call that NCCL goes on with has come to its end; fatal where it
  // fails.
  void Finish(ncclResult_t result, const char* call);
  // No more work follows. What is enqueued was waited for, and what was
  // registered is not any more.
  void Close();
  void Abort();
  ncclResult_t AsyncError() const;
  bool closed() const;

  cudaEvent_t TakeEvent();
  void GiveBack(cudaEvent_t event);

 private:
  friend class RegisteredMemory;

  mutable std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
  bool closed_ = false;
  int registered_ = 0;  // Blocks of memory.
  std::vector<cudaEvent_t> events_;
};

// Memory of the current GPU that NCCL reads and writes where it lies, instead
// of copying through buffers of its own. The connection must not be closed
// before it goes.
class RegisteredMemory {
 public:
  // Work of the queue and of the stream may use the memory. Null where NCCL is
  // older than 2.19, is told not to register (NCCL_LOCAL_REGISTER=0) or has no
  // such memory left.
  static std::shared_ptr<RegisteredMemory> Allocate(
      std::shared_ptr<Connection> connection, size_t bytes, Queue* queue,
      cudaStream_t communication);
  // Waits for both.
  ~RegisteredMemory();
  RegisteredMemory(const RegisteredMemory&) = delete;
  RegisteredMemory& operator=(const RegisteredMemory&) = delete;

  void* data() const { return data_; }

 private:
  RegisteredMemory() = default;

  std::shared_ptr<Connection> connection_;
  Queue* queue_ = nullptr;
  cudaStream_t communication_ = nullptr;
  size_t bytes_ = 0;
  void* data_ = nullptr;
  void* handle_ = nullptr;  // Null: not registered.
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_NCCL_CONNECTION_H_
