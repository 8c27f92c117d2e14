// Which device each rank computes on.
#ifndef LORICA_LAUNCH_DEVICE_CHOICE_H_
#define LORICA_LAUNCH_DEVICE_CHOICE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "launch/config/run_config.h"
#include "parallel/communicator.h"
#include "parallel/mpi_communicator.h"
#include "runtime/device.h"

namespace lorica {

struct DeviceOptions {
  DeviceKind kind = DeviceKind::kAuto;
  // Of GPUs. A file, or empty; whose kernels.
  std::string product_choices;
  AttentionKernels attention = AttentionKernels::kCudnn;
};

struct ChosenDevice {
  std::unique_ptr<Device> device;
  std::string gpu;      // Its name; empty for the CPU.
  std::string why_cpu;  // What keeps kAuto from GPUs, if this build knows them.
};

// Called by all ranks, agreed on by all. A rank takes the GPU of its number
// among the ranks of its host; where the launcher shows each rank fewer, the
// numbers start over. kAuto takes GPUs if every rank has one of its own. Rank 0
// measures the products that the file of choices lacks.
// Errors, with kCuda: this build has no CUDA, a rank has no GPU, two ranks
// would share one; where there are GPUs: the file of choices.
absl::StatusOr<ChosenDevice> OpenDevice(const DeviceOptions& options,
                                        const Placement& placement,
                                        const CpuOptions& cpu,
                                        Communicator& world);

}  // namespace lorica

#endif  // LORICA_LAUNCH_DEVICE_CHOICE_H_
