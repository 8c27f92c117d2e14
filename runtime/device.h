// A device a rank computes on: its backend, its queue, its memory.
#ifndef LORICA_RUNTIME_DEVICE_H_
#define LORICA_RUNTIME_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/backend.h"

namespace lorica {

class Allocator;

// Opened once per rank and used by that rank's thread alone. Outlives every
// tensor on it.
class Device {
 public:
  Device(const Backend* backend, std::shared_ptr<Queue> queue,
         std::unique_ptr<Allocator> allocator);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Backend& backend() const { return *backend_; }
  Queue* queue() const { return queue_.get(); }
  // Where new tensors get their memory.
  Allocator& allocator() const { return *source_; }
  // Calls `table` from now on, one that calls the present one in its turn, as
  // that of traced_backend.h does.
  void Interpose(const Backend* table) { backend_ = table; }
  void Synchronize() const { backend_->synchronize(queue_.get()); }

  // While it lives, new tensors get their memory from another allocator of the
  // same queue.
  class Scope {
   public:
    Scope(Device* device, Allocator* source)
        : device_(device), before_(device->source_) {
      device->source_ = source;
    }
    ~Scope() { device_->source_ = before_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Device* device_;
    Allocator* before_;
  };

 private:
  const Backend* backend_;
  std::shared_ptr<Queue> queue_;
  std::unique_ptr<Allocator> allocator_;
  Allocator* source_;
};

// How memory is handed out: kPool keeps freed blocks and coalesces them, so
// that a training step in its steady state asks the system for nothing;
// kDirect passes each request on, so that sanitizers see every block's ends.
enum class Allocation : uint8_t { kPool, kDirect };

// How long a block is likely to be kept. Each kind has memory of its own: one
// that stays would break up what the others share in turn.
enum class Lifetime : uint8_t {
  kOps,   // A few ops.
  kPass,  // A forward and backward pass, as the residual stream of each block.
};

// The widest instructions the CPU kernels may use; kBest is what the machine
// has. kF32 computes products of BF16 arrays in F32 after widening, as
// machines without AVX-512 BF16 do.
enum class CpuIsa : uint8_t { kBest, kF32 };

struct CpuOptions {
  int threads = 1;  // Of the calling rank's OpenMP pool.
  Allocation allocation = Allocation::kPool;
  CpuIsa isa = CpuIsa::kBest;
};

// The calling thread becomes the device's thread.
std::unique_ptr<Device> OpenCpuDevice(const CpuOptions& options);

// A GPU that this process can see.
struct CudaDevice {
  std::string name;
  std::string uuid;  // Tells it from every other, on any host.
  int major = 0;     // Compute capability.
  int minor = 0;
  int64_t memory_bytes = 0;
};

// Empty where there is a driver and no GPU. Errors: kUnimplemented, this build
// has no CUDA; kUnavailable, the driver does not answer.
absl::StatusOr<std::vector<CudaDevice>> ListCudaDevices();

// Whose kernels compute attention on a GPU: lorica's own, or cuDNN's where it
// has the shape, with gradients summed in a fixed order or, which it has for
// more shapes and with less memory, in any.
enum class AttentionKernels : uint8_t { kOwn, kCudnn, kCudnnAnyOrder };

struct CudaOptions {
  // Whether a product that product_choices lacks is measured and added.
  enum class Missing : uint8_t { kUnmeasured, kMeasured };

  int index = 0;  // Of ListCudaDevices.
  Allocation allocation = Allocation::kPool;
  // A file of the fastest algorithms for products, see
  // runtime/cuda/product_choices.h; empty: what the library proposes.
  std::string product_choices;
  Missing missing = Missing::kUnmeasured;
  AttentionKernels attention = AttentionKernels::kCudnn;
};

// The calling thread becomes the device's thread. Errors: those of
// ListCudaDevices; no such GPU; one that is too old; InvalidArgument: the file
// of product choices.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(
    const CudaOptions& options);

}  // namespace lorica

#endif  // LORICA_RUNTIME_DEVICE_H_
