#include "runtime/cuda/queue.h"

#include <algorithm>
#include <cstdint>

#include "runtime/cuda/check.h"
#include "runtime/cuda/held_memory.h"

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

ScratchBlock::ScratchBlock(size_t size, cudaStream_t of)
    : bytes(size), stream(of) {
  const cudaError_t error = cudaMallocAsync(&data, bytes, stream);
  CHECK(error == cudaSuccess)
      << "out of memory: " << bytes << " scratch bytes wanted on the device, "
      << cudaGetErrorString(error);
}

ScratchBlock::~ScratchBlock() { CUDA_CHECK(cudaFreeAsync(data, stream)); }

StreamQueue::StreamQueue(StreamPriority priority) {
  KeepReleasedMemory();
  int lowest = 0;
  int highest = 0;
  CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  CUDA_CHECK(cudaStreamCreateWithPriority(
      &stream, cudaStreamNonBlocking,
      priority == StreamPriority::kHigh ? highest : lowest));
  attention = std::make_unique<CudnnAttention>(stream);
}

StreamQueue::~StreamQueue() {
  CUDA_CHECK(cudaStreamSynchronize(stream));
  attention = nullptr;
  for (auto& block : scratch) block = nullptr;
  CUDA_CHECK(cudaStreamSynchronize(stream));
  CUDA_CHECK(cudaStreamDestroy(stream));
}

cudaStream_t StreamOf(Queue* queue) { return Of(queue)->stream; }

void* ScratchFor(Queue* queue, ScratchUse use, size_t bytes) {
  auto& block = Of(queue)->scratch[static_cast<size_t>(use)];
  if (block == nullptr || block->bytes < bytes) {
    CheckNotCaptured(queue, "scratch memory");
    block = nullptr;
    block = std::make_shared<ScratchBlock>(bytes, StreamOf(queue));
  }
  return block->data;
}

void CountHeldMemory(Queue* queue, int64_t bytes) {
  StreamQueue* of = Of(queue);
  of->held_bytes += bytes;
  of->most_held_bytes = std::max(of->most_held_bytes, of->held_bytes);
}

void CheckNotCaptured(Queue* queue, const char* what) {
  const StreamRecording* recording = Of(queue)->recording;
  CHECK(recording == nullptr || !recording->captures())
      << what << " in work that is being recorded";
}

void CheckLaunch(cudaError_t error, const void* kernel) {
  if (error == cudaSuccess) return;
  const char* name = nullptr;
  if (cudaFuncGetName(&name, kernel) != cudaSuccess) name = "a kernel";
  LOG(FATAL) << "launch of " << name << ": " << cudaGetErrorName(error) << ", "
             << cudaGetErrorString(error);
}

}  // namespace lorica::cuda
