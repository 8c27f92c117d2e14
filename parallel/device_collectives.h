// Collectives on arrays that lie in the memory of devices.
#ifndef LORICA_PARALLEL_DEVICE_COLLECTIVES_H_
#define LORICA_PARALLEL_DEVICE_COLLECTIVES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/transport.h"
#include "runtime/tensor.h"

namespace lorica {

// A collective that was enqueued. Any thread may ask and abort.
class DeviceWork {
 public:
  enum class State : uint8_t { kRunning, kDone, kFailed };

  virtual ~DeviceWork() = default;
  virtual State Ask() = 0;
  // After kFailed.
  virtual std::string error() const = 0;
  // Lets this rank's part of the collective end without its peers.
  virtual void Abort() = 0;
};

// How the order of additions in a sum over ranks is chosen: kTree is that of
// tree_sum.h, the same bits on every mesh; kFastest is what the library finds
// best for the hardware, the same bits on all ranks of the sum.
enum class SumOrder : uint8_t { kTree, kFastest };

// All ranks of a group make the same calls in the same order, with dense
// tensors. A call follows the work that the tensor's device was given before
// and precedes what it is given afterwards; it returns at once. A peer that
// fails is fatal. Row slices are those of Communicator.
class DeviceCollectives {
 public:
  virtual ~DeviceCollectives() = default;

  // In place; F32 or BF16, which is summed in F32 and rounded once under kTree.
  virtual void AllReduceSum(const Tensor& tensor, SumOrder order) = 0;
  // The same, but what the device is given afterwards runs beside it, until
  // JoinSums: nobody touches the tensor or lets go of it before.
  virtual void StartAllReduceSum(const Tensor& tensor, SumOrder order) = 0;
  // What `device` is given from now on follows every sum that was started.
  virtual void JoinSums(Device* device) = 0;
  // [elements] F32 that calls read and write where it lies; absent where the
  // library copies in any case. It goes before the collectives do.
  virtual Tensor CollectiveMemory(Device* device, int64_t elements) = 0;
  // `whole` [sum of rows, H] receives the slices one under another.
  virtual void AllGatherRows(const Tensor& slice,
                             absl::Span<const int64_t> rows,
                             const Tensor& whole) = 0;
  // `slice` receives this rank's rows of the sum.
  virtual void ReduceScatterRows(const Tensor& tensor,
                                 absl::Span<const int64_t> rows, SumOrder order,
                                 const Tensor& slice) = 0;
  // The last call, for a watchdog.
  virtual std::shared_ptr<DeviceWork> LastWork() = 0;
  // All that `device` was given, calls that it replays among it.
  virtual std::shared_ptr<DeviceWork> WorkOf(Device* device) = 0;
};

// Opens the device collectives of a group; all its ranks call it and all fail
// or none. `group` carries what they need to find each other.
using OpenDeviceCollectives =
    std::function<absl::StatusOr<std::unique_ptr<DeviceCollectives>>(
        Transport& group)>;

}  // namespace lorica

#endif  // LORICA_PARALLEL_DEVICE_COLLECTIVES_H_
