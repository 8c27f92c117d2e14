// In the place of cuDNN's attention where lorica is built without it.
#include "absl/status/status.h"
#include "runtime/cuda/sdpa.h"

namespace lorica::cuda {

absl::StatusOr<std::unique_ptr<SdpaLibrary>> OpenSdpa(cudaStream_t) {
  return absl::UnimplementedError("this lorica is built without cuDNN");
}

}  // namespace lorica::cuda
