// Memory that is registered with communicators of the NCCL stand-in.
#ifndef LORICA_TESTS_SUPPORT_CUDA_FAKES_REGISTRATIONS_H_
#define LORICA_TESTS_SUPPORT_CUDA_FAKES_REGISTRATIONS_H_

#include <cstdint>
#include <map>

#include "tests/support/cuda_fakes/timeline.h"

namespace lorica::cuda_fakes {

// Under the Timeline's lock.
class Registrations {
 public:
  static Registrations& Get();

  void Reset();
  // A handle. Reports a region that is not in live memory.
  uintptr_t Add(const void* comm, Region region);
  // Reports a handle that is none, and uses of the region that the calling
  // thread does not know to be over.
  void Remove(const void* comm, uintptr_t handle);
  // Reports what is still registered with a communicator that ends.
  void CheckNoneOf(const void* comm);
  // Reports memory that goes while it is registered.
  void CheckFree(Region region);
  // Whether the region is registered with the communicator as a whole.
  bool Cover(const void* comm, Region region) const;

  // Calls of ranks of which NCCL had all buffers registered.
  void CountCall() { ++calls_; }
  int64_t calls() const { return calls_; }

 private:
  struct Entry {
    const void* comm;
    Region region;
  };

  std::map<uintptr_t, Entry> entries_;
  uintptr_t next_ = 1;
  int64_t calls_ = 0;
};

}  // namespace lorica::cuda_fakes

#endif  // LORICA_TESTS_SUPPORT_CUDA_FAKES_REGISTRATIONS_H_
