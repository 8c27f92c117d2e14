// Which of cuBLASLt's algorithms is fastest for a product, as measured, in a
// text file: three lines that say what it holds for, then a line a product.
//
//   lorica product choices
//   device NVIDIA H100 80GB HBM3
//   cublasLt 130000
//   NT BF16 BF16 assign plain 8192 4096 4096 4096 4096 4096 256 256 256 171.3
//   0123...
//
// The form, the types of operands and result, the update, whether there is a
// bias; M, N and K; of a, b
// and y the row strides in elements, then the alignments in bytes;
// microseconds; the algorithm as the library lets it be stored for use by its
// own version.
#ifndef LORICA_RUNTIME_CUDA_PRODUCT_CHOICES_H_
#define LORICA_RUNTIME_CUDA_PRODUCT_CHOICES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/cuda/matmul.h"
#include "runtime/device.h"

namespace lorica::cuda {

struct ProductChoice {
  std::array<uint64_t, 8> algorithm = {};  // A cublasLtMatmulAlgo_t's words.
  double microseconds = 0.0;               // Of one product when measured.

  friend bool operator==(const ProductChoice&, const ProductChoice&) = default;
};

class ProductChoices {
 public:
  // What the file at `path` has for this device and version; nothing where
  // there is no file. A file of another device or version is ignored, which a
  // line of the log says. With Missing::kMeasured the file is written, so that
  // a path which cannot be written shows before work starts. Errors: a file
  // that is none of these, named with its line; one that cannot be read or
  // written.
  static absl::StatusOr<std::unique_ptr<ProductChoices>> Open(
      std::string path, absl::string_view device, size_t version,
      CudaOptions::Missing missing);

  // Null where the file had none and none was added.
  const ProductChoice* Find(const MatmulKey& key) const;
  bool measures() const { return missing_ == CudaOptions::Missing::kMeasured; }
  // Puts the choice in the place of one of that key, in the file as well. A
  // file that can no longer be written is a line of the log.
  void Add(const MatmulKey& key, const ProductChoice& choice);

 private:
  ProductChoices(std::string path, std::string header,
                 CudaOptions::Missing missing);
  absl::Status Read(absl::string_view text);
  absl::Status Write() const;

  std::string path_;
  std::string header_;  // Its three lines.
  CudaOptions::Missing missing_;
  std::map<MatmulKey, ProductChoice> choices_;
};

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_PRODUCT_CHOICES_H_
