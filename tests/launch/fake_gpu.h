// GPUs of the stand-ins for CUDA.
#ifndef LORICA_TESTS_LAUNCH_FAKE_GPU_H_
#define LORICA_TESTS_LAUNCH_FAKE_GPU_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/device.h"

namespace lorica {

// That of a rank, each of whose blocks the stand-ins see; null if it fails.
inline std::unique_ptr<Device> OpenFakeGpu(int rank) {
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenCudaDevice({.index = rank, .allocation = Allocation::kDirect});
  return device.ok() ? *std::move(device) : nullptr;
}

}  // namespace lorica

#endif  // LORICA_TESTS_LAUNCH_FAKE_GPU_H_
