// Causal attention of packed records by a library ("scaled dot product
// attention"): what attention asks of it. sdpa_cudnn.cc is the file that knows
// cuDNN; sdpa_absent.cc stands in its place where lorica is built without.
#ifndef LORICA_RUNTIME_CUDA_SDPA_H_
#define LORICA_RUNTIME_CUDA_SDPA_H_

#include <cuda_runtime_api.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/backend.h"

namespace lorica::cuda {

// The matrices of attention, of BF16. Forward has the first four.
enum class SdpaMatrix : uint8_t { kQ, kK, kV, kOut, kDout, kDq, kDk, kDv };
inline constexpr SdpaMatrix kSdpaMatrices[] = {
    SdpaMatrix::kQ,    SdpaMatrix::kK,  SdpaMatrix::kV,  SdpaMatrix::kOut,
    SdpaMatrix::kDout, SdpaMatrix::kDq, SdpaMatrix::kDk, SdpaMatrix::kDv};
template <typename T>
using PerSdpaMatrix = std::array<T, std::size(kSdpaMatrices)>;

constexpr size_t IndexOf(SdpaMatrix matrix) {
  return static_cast<size_t>(matrix);
}
constexpr size_t NumMatrices(Direction direction) {
  return IndexOf(direction == Direction::kForward ? SdpaMatrix::kOut
                                                  : SdpaMatrix::kDv) +
         1;
}
// Whether the matrix has a row per key, and kv_heads heads.
constexpr bool IsOfKeys(SdpaMatrix matrix) {
  return matrix == SdpaMatrix::kK || matrix == SdpaMatrix::kV ||
         matrix == SdpaMatrix::kDk || matrix == SdpaMatrix::kDv;
}

// How the terms of a gradient are added: in an order that the arguments
// determine, or as they come, which may change its last bits.
enum class GradOrder : uint8_t { kFixed, kAny };

// What a plan depends on. Records have as many queries as keys.
struct SdpaShape {
  Direction direction = Direction::kForward;
  GradOrder order = GradOrder::kFixed;  // Of backward.
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t records = 0;  // Slots; those of no tokens come last.
  int64_t longest = 0;  // Tokens of a record, at most.
  int64_t tokens = 0;   // Rows of the matrices, at most. Of backward.
  float scale = 1.0f;
  PerSdpaMatrix<int64_t> row_strides = {};  // In elements.

  friend auto operator<=>(const SdpaShape&, const SdpaShape&) = default;
};

// What a call of a plan works on, all on the device.
struct SdpaArrays {
  PerSdpaMatrix<void*> matrices = {};
  // [records]: tokens of each.
  const int32_t* lengths = nullptr;
  // [records + 1] of each matrix: the element that a record begins at, and
  // where the last one ends.
  PerSdpaMatrix<const int32_t*> offsets = {};
  // [records, heads, longest] F32: logs of sums of exponentials, result of
  // forward; +infinity past a record's end in backward.
  float* stats = nullptr;
  void* workspace = nullptr;
};

class SdpaPlan {
 public:
  virtual ~SdpaPlan() = default;
  virtual size_t workspace_bytes() const = 0;
  // The library's name of the way it chose.
  virtual const std::string& engine() const = 0;
  // Enqueues on the library's stream. Writes the rows of records alone.
  virtual absl::Status Run(const SdpaArrays& arrays) = 0;
};

class SdpaLibrary {
 public:
  virtual ~SdpaLibrary() = default;
  // Takes up to a second. Error: the library has no such attention. Outlives
  // its plans.
  virtual absl::StatusOr<std::unique_ptr<SdpaPlan>> Plan(
      const SdpaShape& shape) = 0;
};

// For the current device. Errors: kUnimplemented, lorica is built without the
// library; kUnavailable, it does not start or is too old.
absl::StatusOr<std::unique_ptr<SdpaLibrary>> OpenSdpa(cudaStream_t stream);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_SDPA_H_
