// What the CUDA backend keeps from call to call: a stream, scratch memory,
// pinned buffers, and what it has planned of products and attention.
#ifndef LORICA_RUNTIME_CUDA_QUEUE_H_
#define LORICA_RUNTIME_CUDA_QUEUE_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/backend.h"
#include "runtime/cuda/cudnn_attention.h"
#include "runtime/cuda/host_ring.h"
#include "runtime/cuda/launch.h"
#include "runtime/cuda/matmul.h"
#include "runtime/cuda/recording.h"

namespace lorica::cuda {

// Memory of the device, given back in the order of the stream. Fatal where
// there is none left.
struct ScratchBlock {
  ScratchBlock(size_t size, cudaStream_t of);
  ~ScratchBlock();
  ScratchBlock(const ScratchBlock&) = delete;
  ScratchBlock& operator=(const ScratchBlock&) = delete;

  void* data = nullptr;
  size_t bytes;
  cudaStream_t stream;
};

// Whose blocks a GPU starts first where several streams have some to start.
enum class StreamPriority : uint8_t { kNormal, kHigh };

// All work of a device goes to one stream, so memory that is released and
// taken again needs no other order. Created and used with the device current
// in the calling thread.
struct StreamQueue : Queue {
  explicit StreamQueue(StreamPriority priority);
  // Waits for the stream.
  ~StreamQueue();
  StreamQueue(const StreamQueue&) = delete;
  StreamQueue& operator=(const StreamQueue&) = delete;

  cudaStream_t stream = nullptr;
  // Each grows to the largest request and stays; recordings keep what they were
  // made with.
  std::shared_ptr<const ScratchBlock>
      scratch[static_cast<size_t>(ScratchUse::kCount)];
  HostRing ring;
  MatmulPlans matmuls;
  std::unique_ptr<CudnnAttention> attention;
  int64_t held_bytes = 0;  // See held_memory.h.
  int64_t most_held_bytes = 0;
  StreamRecorder recorder{this};
  // What is being rehearsed or recorded; null: nothing.
  StreamRecording* recording = nullptr;
};

inline StreamQueue* Of(Queue* queue) {
  return static_cast<StreamQueue*>(queue);
}

// Fatal in work that is being recorded, where `what` would not be done again.
void CheckNotCaptured(Queue* queue, const char* what);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_QUEUE_H_
