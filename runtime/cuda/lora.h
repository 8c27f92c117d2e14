// The host side of the table: what is composed of products.
#ifndef LORICA_RUNTIME_CUDA_LORA_H_
#define LORICA_RUNTIME_CUDA_LORA_H_

#include "runtime/backend.h"

namespace lorica::cuda {

void LoraForward(Queue* queue, const LoraForwardArgs& args);
void LoraBackward(Queue* queue, const LoraBackwardArgs& args);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_LORA_H_
