// A second stream of work on a GPU.
#ifndef LORICA_RUNTIME_CUDA_SIDE_DEVICE_H_
#define LORICA_RUNTIME_CUDA_SIDE_DEVICE_H_

#include <memory>

#include "runtime/device.h"

namespace lorica::cuda {

// The GPU that is current in the calling thread, as a device with a queue and
// memory of its own: what it is given runs beside what the GPU's other devices
// are given and takes precedence, and nothing but events orders them. Its
// memory is the driver's pool, in the order of its queue.
std::unique_ptr<Device> OpenSideDevice();

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_SIDE_DEVICE_H_
