// In the place of this room where lorica is built without CUDA.
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "runtime/allocator.h"
#include "runtime/device.h"

namespace lorica {
namespace {

absl::Status Absent() {
  return absl::UnimplementedError(
      "this lorica is built without CUDA (cmake -DLORICA_CUDA=ON)");
}

}  // namespace

absl::StatusOr<std::vector<CudaDevice>> ListCudaDevices() { return Absent(); }

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const CudaOptions&) {
  return Absent();
}

}  // namespace lorica
