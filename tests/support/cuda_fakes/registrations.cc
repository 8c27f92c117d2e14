#include "tests/support/cuda_fakes/registrations.h"

#include <nccl.h>

#include <mutex>

#include "tests/support/cuda_fakes/memory.h"

namespace lorica::cuda_fakes {

Registrations& Registrations::Get() {
  static auto* const registrations = new Registrations();
  return *registrations;
}

void Registrations::Reset() {
  entries_.clear();
  calls_ = 0;
}

uintptr_t Registrations::Add(const void* comm, Region region) {
  if (!DeviceMemory::Get().Holds(region)) {
    Timeline::Get().Report(
        "ncclCommRegister of memory outside any live allocation");
  }
  entries_[next_] = {comm, region};
  return next_++;
}

void Registrations::Remove(const void* comm, uintptr_t handle) {
  const auto found = entries_.find(handle);
  if (found == entries_.end() || found->second.comm != comm) {
    return Timeline::Get().Report("ncclCommDeregister of no registration");
  }
  DeviceMemory::Get().CheckUnused("ncclCommDeregister", found->second.region);
  entries_.erase(found);
}

void Registrations::CheckNoneOf(const void* comm) {
  for (const auto& [handle, entry] : entries_) {
    if (entry.comm == comm) {
      Timeline::Get().Report("ncclCommDestroy with memory still registered");
    }
  }
}

void Registrations::CheckFree(Region region) {
  for (const auto& [handle, entry] : entries_) {
    if (Overlap(entry.region, region)) {
      Timeline::Get().Report("memory is freed that is registered with NCCL");
    }
  }
}

bool Registrations::Cover(const void* comm, Region region) const {
  for (const auto& [handle, entry] : entries_) {
    if (entry.comm == comm && Contains(entry.region, region)) return true;
  }
  return false;
}

int64_t RegisteredCalls() {
  const std::lock_guard lock(Timeline::Get().mutex());
  return Registrations::Get().calls();
}

}  // namespace lorica::cuda_fakes

using lorica::cuda_fakes::DeviceMemory;
using lorica::cuda_fakes::Registrations;
using lorica::cuda_fakes::Timeline;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = Timeline::Get().settings().nccl_version;
  return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void** data, size_t bytes) {
  const std::lock_guard lock(Timeline::Get().mutex());
  *data = DeviceMemory::Get().Allocate(bytes, DeviceMemory::Source::kLibrary);
  return *data != nullptr ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclMemFree(void* data) {
  const std::lock_guard lock(Timeline::Get().mutex());
  DeviceMemory& memory = DeviceMemory::Get();
  if (memory.WholeAt(data).data == nullptr) {
    Timeline::Get().Report("ncclMemFree of what was not allocated");
    return ncclInvalidArgument;
  }
  memory.CheckUnused("ncclMemFree", memory.WholeAt(data));
  memory.Free(data);
  return ncclSuccess;
}

}  // extern "C"
