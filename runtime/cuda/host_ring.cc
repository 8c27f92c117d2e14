#include "runtime/cuda/host_ring.h"

#include <algorithm>
#include <cstring>

#include "runtime/cuda/check.h"

namespace lorica::cuda {
namespace {

// Copies begin at whole cache lines.
constexpr size_t kUnit = 64;

}  // namespace

HostRing::~HostRing() {
  for (const Buffer& buffer : buffers_) {
    if (buffer.data == nullptr) continue;
    CUDA_CHECK(cudaEventDestroy(buffer.copied));
    CUDA_CHECK(cudaFreeHost(buffer.data));
  }
}

void HostRing::Open() {
  for (Buffer& buffer : buffers_) {
    void* data = nullptr;
    CUDA_CHECK(cudaMallocHost(&data, kBufferBytes));
    buffer.data = static_cast<char*>(data);
    CUDA_CHECK(
        cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming));
  }
}

void HostRing::Turn(cudaStream_t stream) {
  CUDA_CHECK(cudaEventRecord(buffers_[current_].copied, stream));
  current_ = 1 - current_;
  // An event never recorded is done.
  CUDA_CHECK(cudaEventSynchronize(buffers_[current_].copied));
  buffers_[current_].used = 0;
}

void HostRing::CopyIn(void* device, const void* host, size_t bytes,
                      cudaStream_t stream) {
  if (buffers_[0].data == nullptr) Open();
  size_t done = 0;
  while (done < bytes) {
    if (buffers_[current_].used == kBufferBytes) Turn(stream);
    Buffer& buffer = buffers_[current_];
    const size_t part = std::min(kBufferBytes - buffer.used, bytes - done);
    char* place = buffer.data + buffer.used;
    std::memcpy(place, static_cast<const char*>(host) + done, part);
    CUDA_CHECK(cudaMemcpyAsync(static_cast<char*>(device) + done, place, part,
                               cudaMemcpyHostToDevice, stream));
    done += part;
    buffer.used = std::min(kBufferBytes,
                           buffer.used + (part + kUnit - 1) / kUnit * kUnit);
  }
}

}  // namespace lorica::cuda
