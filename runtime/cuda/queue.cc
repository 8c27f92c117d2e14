#include "runtime/cuda/queue.h"

#include <cstdint>

#include "runtime/cuda/check.h"

namespace lorica::cuda {
namespace {

// Memory given back to the driver's pool stays there: steps after the first
// ask the system for nothing.
void KeepReleasedMemory() {
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  cudaMemPool_t pool = nullptr;
  CUDA_CHECK(cudaDeviceGetDefaultMemPool(&pool, device));
  uint64_t threshold = UINT64_MAX;
  CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold,
                                     &threshold));
}

}  // namespace

StreamQueue::StreamQueue(StreamPriority priority) {
  KeepReleasedMemory();
  int lowest = 0;
  int highest = 0;
  CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  CUDA_CHECK(cudaStreamCreateWithPriority(
      &stream, cudaStreamNonBlocking,
      priority == StreamPriority::kHigh ? highest : lowest));
  CUDA_CHECK(
      cudaMallocAsync(reinterpret_cast<void**>(&norm), sizeof(*norm), stream));
  attention = std::make_unique<CudnnAttention>(stream);
}

StreamQueue::~StreamQueue() {
  CUDA_CHECK(cudaStreamSynchronize(stream));
  attention = nullptr;
  for (const ScratchBlock& block : scratch) {
    if (block.data != nullptr) CUDA_CHECK(cudaFreeAsync(block.data, stream));
  }
  CUDA_CHECK(cudaFreeAsync(norm, stream));
  CUDA_CHECK(cudaStreamSynchronize(stream));
  CUDA_CHECK(cudaStreamDestroy(stream));
}

cudaStream_t StreamOf(Queue* queue) { return Of(queue)->stream; }

void* ScratchFor(Queue* queue, ScratchUse use, size_t bytes) {
  ScratchBlock& block = Of(queue)->scratch[static_cast<size_t>(use)];
  if (block.bytes < bytes) {
    if (block.data != nullptr) {
      CUDA_CHECK(cudaFreeAsync(block.data, StreamOf(queue)));
    }
    block = {};
    const cudaError_t error =
        cudaMallocAsync(&block.data, bytes, StreamOf(queue));
    CHECK(error == cudaSuccess)
        << "out of memory: " << bytes << " scratch bytes wanted on the device, "
        << cudaGetErrorString(error);
    block.bytes = bytes;
  }
  return block.data;
}

void CheckLaunch(cudaError_t error, const void* kernel) {
  if (error == cudaSuccess) return;
  const char* name = nullptr;
  if (cudaFuncGetName(&name, kernel) != cudaSuccess) name = "a kernel";
  LOG(FATAL) << "launch of " << name << ": " << cudaGetErrorName(error) << ", "
             << cudaGetErrorString(error);
}

}  // namespace lorica::cuda
