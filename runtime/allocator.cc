#include "runtime/allocator.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <mutex>

#include "runtime/check.h"

namespace lorica {
namespace {

// Slabs grow by at least this much, so that a step's small tensors do not each
// reach the system.
constexpr size_t kMinSlabBytes = size_t{8} << 20;

size_t RoundUp(size_t bytes) {
  const size_t mask = Allocator::kAlignment - 1;
  return std::max(Allocator::kAlignment, (bytes + mask) & ~mask);
}

}  // namespace

Allocator::Allocator(const Backend* backend, Queue* queue,
                     Allocation allocation)
    : backend_(backend), queue_(queue), allocation_(allocation) {}

Allocator::~Allocator() {
  CHECK_EQ(in_use_, 0u) << "bytes of tensors outlive their device";
  for (const Slab& slab : slabs_) {
    backend_->release(queue_, slab.data, slab.bytes);
  }
}

void* Allocator::Allocate(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes = RoundUp(bytes);
  void* data = nullptr;
  if (allocation_ == Allocation::kDirect) {
    data = backend_->allocate(queue_, bytes);
    CHECK(data != nullptr) << "out of memory: " << bytes << " bytes wanted, "
                           << in_use_ << " in use on " << backend_->name;
  } else {
    data = TakeFree(bytes);
    if (data == nullptr) {
      AddSlab(bytes);
      data = TakeFree(bytes);
    }
  }
  in_use_ += bytes;
  peak_ = std::max(peak_, in_use_);
  return data;
}

void Allocator::Release(void* data, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes = RoundUp(bytes);
  in_use_ -= bytes;
  if (allocation_ == Allocation::kDirect) {
    backend_->release(queue_, data, bytes);
    return;
  }
  // Joins the block with its free neighbours. Neighbouring slabs may join as
  // well, which does no harm: slabs are released only as a whole, at the end.
  char* address = static_cast<char*>(data);
  auto next = free_by_address_.lower_bound(address);
  if (next != free_by_address_.end() && address + bytes == next->first) {
    bytes += next->second;
    free_by_size_.erase({next->second, next->first});
    next = free_by_address_.erase(next);
  }
  if (next != free_by_address_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == address) {
      address = before->first;
      bytes += before->second;
      free_by_size_.erase({before->second, before->first});
      free_by_address_.erase(before);
    }
  }
  free_by_address_.emplace(address, bytes);
  free_by_size_.emplace(bytes, address);
}

// The smallest block that fits, lowest address first: equal requests in equal
// order get equal addresses, step after step.
void* Allocator::TakeFree(size_t bytes) {
  const auto found = free_by_size_.lower_bound({bytes, nullptr});
  if (found == free_by_size_.end()) return nullptr;
  const auto [size, address] = *found;
  free_by_size_.erase(found);
  free_by_address_.erase(address);
  if (size > bytes) {
    free_by_address_.emplace(address + bytes, size - bytes);
    free_by_size_.emplace(size - bytes, address + bytes);
  }
  return address;
}

void Allocator::AddSlab(size_t bytes) {
  bytes = std::max(bytes, kMinSlabBytes);
  char* data = static_cast<char*>(backend_->allocate(queue_, bytes));
  CHECK(data != nullptr) << "out of memory: " << bytes << " bytes wanted, "
                         << in_use_ << " in use on " << backend_->name;
  slabs_.push_back({data, bytes});
  free_by_address_.emplace(data, bytes);
  free_by_size_.emplace(bytes, data);
}

size_t Allocator::bytes_in_use() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return in_use_;
}

size_t Allocator::peak_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return peak_;
}

void Allocator::ResetPeak() {
  const std::lock_guard<std::mutex> lock(mutex_);
  peak_ = in_use_;
}

}  // namespace lorica
