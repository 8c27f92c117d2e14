// The way of host memory to a device: through pinned buffers, so that the
// device's copy engine reads at full speed while the host goes on.
#ifndef LORICA_RUNTIME_CUDA_HOST_RING_H_
#define LORICA_RUNTIME_CUDA_HOST_RING_H_

#include <cuda_runtime_api.h>

#include <cstddef>

namespace lorica::cuda {

// Two buffers take turns. One is filled again when the copies out of it are
// done; large arrays go in slices, so that the host reads one (from a mapped
// file, say) while the device takes the other.
class HostRing {
 public:
  static constexpr size_t kBufferBytes = size_t{4} << 20;

  // Pins the buffers with the first copy.
  HostRing() = default;
  // No copy may be pending.
  ~HostRing();
  HostRing(const HostRing&) = delete;
  HostRing& operator=(const HostRing&) = delete;

  // Copies in the order of `stream`. `host` may go when the call returns.
  void CopyIn(void* device, const void* host, size_t bytes,
              cudaStream_t stream);

 private:
  struct Buffer {
    char* data = nullptr;
    cudaEvent_t copied = nullptr;  // The last copy out of the buffer is done.
    size_t used = 0;
  };

  void Open();
  // Goes on with the other buffer.
  void Turn(cudaStream_t stream);

  Buffer buffers_[2];
  int current_ = 0;
};

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_HOST_RING_H_
