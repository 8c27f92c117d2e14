// What work asks of a device's memory, seen without the work.
#ifndef LORICA_RUNTIME_DRY_RUN_H_
#define LORICA_RUNTIME_DRY_RUN_H_

#include <cstddef>
#include <cstdint>

#include "runtime/allocator.h"
#include "runtime/device.h"

namespace lorica {

// Bytes of each kind of memory, see Lifetime.
struct MemoryPlan {
  size_t ops = 0;
  size_t pass = 0;
  // Another number for other requests, another order or other places.
  uint64_t places = 0;

  size_t bytes() const { return ops + pass; }
  friend bool operator==(const MemoryPlan&, const MemoryPlan&) = default;
};

// Another number for other numbers or another order of them.
constexpr uint64_t Mixed(uint64_t state, uint64_t number) {
  state = (state ^ number) * 0x9e3779b97f4a7c15u;
  return state ^ (state >> 32);
}

// While it lives, `device` computes nothing: what it is given returns at once,
// and new tensors lie at addresses of no memory, placed as an Allocator places
// them. So the very code that computes says what it takes, in the time that it
// takes to ask. Collectives of these tensors move nothing and ask no other
// rank. Arrays that were there before may be used and are not touched.
//
// Tensors made meanwhile go before it does. Dry runs may be nested: each counts
// its own.
class DryRun {
 public:
  explicit DryRun(Device* device);
  ~DryRun();
  DryRun(const DryRun&) = delete;
  DryRun& operator=(const DryRun&) = delete;

  // What Allocator::Reserve must be given to serve the same requests in the
  // same order.
  MemoryPlan taken() const;

 private:
  Device* device_;
  const Backend* before_;
  Backend table_;
  Allocator memory_;
  Allocator::Plan requests_;
  Device::Scope scope_;
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_DRY_RUN_H_
