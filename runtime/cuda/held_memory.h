// Memory of a GPU that does not come from its queue's pool.
#ifndef LORICA_RUNTIME_CUDA_HELD_MEMORY_H_
#define LORICA_RUNTIME_CUDA_HELD_MEMORY_H_

#include <cstdint>

#include "runtime/backend.h"

namespace lorica::cuda {

// Counts bytes that were taken from elsewhere for arrays of the queue's device,
// or, less than 0, given back: Backend::peak_memory tells of them.
void CountHeldMemory(Queue* queue, int64_t bytes);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_HELD_MEMORY_H_
