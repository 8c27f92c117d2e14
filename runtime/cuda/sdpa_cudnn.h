// cuDNN's attention for a device that need not be here.
#ifndef LORICA_RUNTIME_CUDA_SDPA_CUDNN_H_
#define LORICA_RUNTIME_CUDA_SDPA_CUDNN_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/cuda/sdpa.h"

namespace lorica::cuda {

struct SdpaDevice {
  int sm = 0;              // Compute capability, 90 for 9.0.
  std::string properties;  // JSON, as cuDNN writes down a device's.
};

// For planning: there is nothing that the plans could run on.
absl::StatusOr<std::unique_ptr<SdpaLibrary>> OpenSdpaFor(
    const SdpaDevice& device);

// How the arrays of a call are called in cuDNN's graphs.
enum class SdpaUid : int64_t {
  kMatrices = 1,  // Of the first; the others follow.
  kOffsets = 11,  // Likewise.
  kQueryLengths = 21,
  kKeyLengths = 22,  // Both are `lengths`.
  kStats = 23,
};

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_SDPA_CUDNN_H_
