// What the host sees of a tensor, wherever it lies.
#ifndef LORICA_PARALLEL_HOST_IMAGE_H_
#define LORICA_PARALLEL_HOST_IMAGE_H_

#include <vector>

#include "runtime/tensor.h"

namespace lorica {

// The elements of a dense tensor in memory that the host can address: the
// tensor's own where its device has such memory, a copy where it has not.
class HostImage {
 public:
  // kRead and kReadWrite wait for the device; kWrite starts with what lies
  // there.
  enum class Access : uint8_t { kRead, kWrite, kReadWrite };

  HostImage(const Tensor& tensor, Access access);
  // Hands a written copy to the device.
  ~HostImage();
  HostImage(const HostImage&) = delete;
  HostImage& operator=(const HostImage&) = delete;

  char* data() const { return data_; }

 private:
  Tensor tensor_;
  Access access_;
  std::vector<char> copy_;
  char* data_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_HOST_IMAGE_H_
