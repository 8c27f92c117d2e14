#include "runtime/device.h"

#include <memory>
#include <utility>

#include "runtime/allocator.h"

namespace lorica {

Device::Device(const Backend* backend, std::shared_ptr<Queue> queue,
               std::unique_ptr<Allocator> allocator)
    : backend_(backend),
      queue_(std::move(queue)),
      allocator_(std::move(allocator)),
      source_(allocator_.get()) {}

Device::~Device() = default;

}  // namespace lorica
