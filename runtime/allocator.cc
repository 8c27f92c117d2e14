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
  for (const Pool& pool : pools_) {
    for (const Slab& slab : pool.slabs) {
      backend_->release(queue_, slab.data, slab.bytes);
    }
  }
}

void* Allocator::Allocate(size_t bytes, Lifetime lifetime) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes = RoundUp(bytes);
  void* const data = Take(bytes, lifetime);
  in_use_ += bytes;
  return data;
}

void* Allocator::Take(size_t bytes, Lifetime lifetime) {
  if (follows_) {
    CHECK_LT(next_, plan_->requests.size()) << "more than was planned";
    const Plan::Request& request = plan_->requests[next_++];
    CHECK_EQ(request.bytes, bytes) << "other work than was planned";
    return request.data;
  }
  void* data = nullptr;
  if (allocation_ == Allocation::kDirect) {
    data = backend_->allocate(queue_, bytes);
    CHECK(data != nullptr) << "out of memory: " << bytes << " bytes wanted, "
                           << in_use_ << " in use on " << backend_->name;
  } else {
    Pool& pool = pools_[static_cast<size_t>(lifetime)];
    data = pool.TakeFree(bytes);
    if (data == nullptr) {
      AddSlab(bytes, &pool);
      data = pool.TakeFree(bytes);
    }
  }
  if (plan_ != nullptr) plan_->requests.push_back({bytes, data});
  return data;
}

void Allocator::Release(void* data, size_t bytes, Lifetime lifetime) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes = RoundUp(bytes);
  in_use_ -= bytes;
  if (follows_) return;
  if (allocation_ == Allocation::kDirect) {
    backend_->release(queue_, data, bytes);
    return;
  }
  pools_[static_cast<size_t>(lifetime)].AddFree(static_cast<char*>(data),
                                                bytes);
}

void Allocator::BeginPlan(Plan* plan) {
  const std::lock_guard<std::mutex> lock(mutex_);
  CHECK(allocation_ == Allocation::kPool);  // Which keeps what it has.
  CHECK(plan_ == nullptr && in_use_ == 0);
  plan_ = plan;
  follows_ = !plan->requests.empty();
  next_ = 0;
}

void Allocator::EndPlan() {
  const std::lock_guard<std::mutex> lock(mutex_);
  CHECK_EQ(in_use_, 0u) << "bytes outlive the plan they are part of";
  CHECK(!follows_ || next_ == plan_->requests.size())
      << "less than was planned";
  plan_ = nullptr;
  follows_ = false;
}

void Allocator::Reserve(Lifetime lifetime, void* data, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Pool& pool = pools_[static_cast<size_t>(lifetime)];
  CHECK(allocation_ == Allocation::kPool);
  CHECK(pool.reserve == nullptr && pool.slabs.empty());
  pool.reserve = pool.top = pool.highest_top = static_cast<char*>(data);
  pool.end = pool.reserve + bytes;
}

size_t Allocator::reserve_used(Lifetime lifetime) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Pool& pool = pools_[static_cast<size_t>(lifetime)];
  return static_cast<size_t>(pool.highest_top - pool.reserve);
}

void Allocator::AddSlab(size_t bytes, Pool* pool) {
  bytes = std::max(bytes, kMinSlabBytes);
  char* data = static_cast<char*>(backend_->allocate(queue_, bytes));
  CHECK(data != nullptr) << "out of memory: " << bytes << " bytes wanted, "
                         << in_use_ << " in use on " << backend_->name;
  pool->slabs.push_back({data, bytes});
  pool->AddFree(data, bytes);
}

// Joins the block with its free neighbours. Neighbouring slabs may join as
// well, which does no harm: slabs are released only as a whole, at the end.
void Allocator::Pool::AddFree(char* data, size_t bytes) {
  auto next = free_by_address.lower_bound(data);
  if (next != free_by_address.end() && data + bytes == next->first) {
    bytes += next->second;
    free_by_size.erase({next->second, next->first});
    next = free_by_address.erase(next);
  }
  if (next != free_by_address.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == data) {
      data = before->first;
      bytes += before->second;
      free_by_size.erase({before->second, before->first});
      free_by_address.erase(before);
    }
  }
  if (data + bytes == top) {
    top = data;
    return;
  }
  free_by_address.emplace(data, bytes);
  free_by_size.emplace(bytes, data);
}

// The smallest block that fits, lowest address first: equal requests in equal
// order get equal addresses, step after step. Where none does, what follows the
// last block of the reserve.
void* Allocator::Pool::TakeFree(size_t bytes) {
  const auto found = free_by_size.lower_bound({bytes, nullptr});
  if (found == free_by_size.end()) {
    if (static_cast<size_t>(end - top) < bytes) return nullptr;
    char* const data = top;
    top += bytes;
    highest_top = std::max(highest_top, top);
    return data;
  }
  const auto [size, address] = *found;
  free_by_size.erase(found);
  free_by_address.erase(address);
  if (size > bytes) {
    free_by_address.emplace(address + bytes, size - bytes);
    free_by_size.emplace(size - bytes, address + bytes);
  }
  return address;
}

size_t Allocator::bytes_in_use() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return in_use_;
}

size_t Allocator::slab_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  size_t bytes = 0;
  for (const Pool& pool : pools_) {
    for (const Slab& slab : pool.slabs) bytes += slab.bytes;
  }
  return bytes;
}

}  // namespace lorica
