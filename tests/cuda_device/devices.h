// The GPUs that a test runs on.
#ifndef LORICA_TESTS_CUDA_DEVICE_DEVICES_H_
#define LORICA_TESTS_CUDA_DEVICE_DEVICES_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/device.h"

namespace lorica {

// Skips the test where fewer than `wanted` GPUs answer.
inline void SkipWithoutGpus(int wanted) {
  const absl::StatusOr<std::vector<CudaDevice>> devices = ListCudaDevices();
  if (!devices.ok()) {
    GTEST_SKIP() << std::string(devices.status().message());
  }
  if (static_cast<int>(devices->size()) < wanted) {
    GTEST_SKIP() << devices->size() << " GPUs here, " << wanted << " wanted";
  }
}

// Null, and a failure, where it does not open.
inline std::unique_ptr<Device> OpenGpu(int index) {
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenCudaDevice({.index = index});
  if (device.ok()) return *std::move(device);
  ADD_FAILURE() << std::string(device.status().message());
  return nullptr;
}

}  // namespace lorica

#endif  // LORICA_TESTS_CUDA_DEVICE_DEVICES_H_
