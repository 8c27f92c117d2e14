#include "parallel/host_image.h"

#include "runtime/check.h"

namespace lorica {

HostImage::HostImage(const Tensor& tensor, Access access)
    : tensor_(tensor), access_(access) {
  CHECK(tensor.present());
  CHECK(tensor.dense()) << "a collective on rows that are not dense";
  if (tensor.device()->backend().memory == Memory::kHost) {
    tensor.device()->Synchronize();
    data_ = static_cast<char*>(tensor.data());
    return;
  }
  copy_.resize(static_cast<size_t>(tensor.elements()) * SizeOf(tensor.dtype()));
  data_ = copy_.data();
  if (access != Access::kWrite) tensor.CopyTo(data_);
}

HostImage::~HostImage() {
  if (!copy_.empty() && access_ != Access::kRead) tensor_.CopyFrom(data_);
}

}  // namespace lorica
