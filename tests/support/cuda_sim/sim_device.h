// A device whose kernels run on the simulator at once, without a CUDA library:
// products that no kernel has are plain sums, memory is the simulator's.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_SIM_DEVICE_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_SIM_DEVICE_H_

#include <memory>

#include "runtime/device.h"

namespace lorica {

// Serves the entries of the Backend that runtime/cuda/kernels.h lists as
// kernels, and products; others are fatal.
std::unique_ptr<Device> OpenSimDevice();

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_SIM_DEVICE_H_
