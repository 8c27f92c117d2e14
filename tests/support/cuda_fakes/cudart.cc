// The functions of the CUDA runtime that lorica calls.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/cuda_fakes/memory.h"
#include "tests/support/cuda_fakes/timeline.h"
#include "tests/support/cuda_sim/simulator.h"

namespace {

using lorica::cuda_fakes::DeviceMemory;
using lorica::cuda_fakes::Lock;
using lorica::cuda_fakes::Op;
using lorica::cuda_fakes::Region;
using lorica::cuda_fakes::Stream;
using lorica::cuda_fakes::Timeline;
namespace cuda_sim = lorica::cuda_sim;

Timeline& TheTimeline() { return Timeline::Get(); }

thread_local int current_device = 0;

// Host memory that copies read late, by address.
std::map<const char*, size_t>& Pinned() {
  static auto* const pinned = new std::map<const char*, size_t>();
  return *pinned;
}

bool IsPinned(const void* data) {
  const auto* address = static_cast<const char*>(data);
  const auto next = Pinned().upper_bound(address);
  if (next == Pinned().begin()) return false;
  const auto& [begin, bytes] = *std::prev(next);
  return address < begin + bytes;
}

// Launches become operations whose accesses are gathered as they run.
void CatchLaunches() {
  static std::once_flag once;
  std::call_once(once, [] {
    cuda_sim::SetAccessObserver(
        [](const void* data, size_t bytes, cuda_sim::Access access) {
          DeviceMemory::Get().Access(data, bytes,
                                     access == cuda_sim::Access::kWrite);
        });
    cuda_sim::SetLauncher([](cudaStream_t stream, cuda_sim::KernelCall call) {
      TheTimeline().CountLaunch();
      char name[32];
      std::snprintf(name, sizeof(name), "kernel %p", call.kernel);
      TheTimeline().Add(reinterpret_cast<Stream*>(stream),
                        {.name = name, .run = [call](const Op& op) {
                           DeviceMemory::Get().BeginKernel();
                           cuda_sim::Run(call);
                           DeviceMemory::Get().EndKernel(op);
                         }});
      return cudaSuccess;
    });
  });
}

Stream* Of(cudaStream_t stream) { return reinterpret_cast<Stream*>(stream); }

// Calls that have no place in a capture of the stream, or of this thread.
bool Forbidden(cudaStream_t stream, const char* call) {
  return TheTimeline().ForbidsInStream(Of(stream), call);
}
bool Forbidden(const char* call) { return TheTimeline().Forbids(call); }
constexpr cudaError_t kForbidden = cudaErrorStreamCaptureUnsupported;

cudaError_t Waited(bool done) { return done ? cudaSuccess : cudaErrorUnknown; }

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = TheTimeline().settings().devices;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= TheTimeline().settings().devices) {
    return cudaErrorInvalidDevice;
  }
  current_device = device;
  TheTimeline().Enter();
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "Fake GPU %d",
                device);
  properties->uuid.bytes[15] = static_cast<char>(device);
  properties->major = TheTimeline().settings().compute_major;
  properties->totalGlobalMem = TheTimeline().settings().memory_bytes;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const auto lock = Lock();
  if (Forbidden("cudaDeviceSynchronize")) return kForbidden;
  return Waited(TheTimeline().RunAll());
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorOfAFake";
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorNoDevice ? "no device" : "see the fakes' reports";
}

cudaError_t cudaFuncGetName(const char** name, const void*) {
  *name = "a kernel";
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  *lowest = 0;
  *highest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags,
                                         int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  CatchLaunches();
  *stream = reinterpret_cast<cudaStream_t>(TheTimeline().NewStream());
  return cudaSuccess;
}

// What is pending still runs, as on a device.
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (Forbidden(stream, "cudaStreamSynchronize")) return kForbidden;
  return Waited(TheTimeline().RunUntil(Of(stream)->last));
}

cudaError_t cudaMallocAsync(void** data, size_t bytes, cudaStream_t stream) {
  const auto lock = Lock();
  if (Forbidden(stream, "cudaMallocAsync")) return kForbidden;
  *data = DeviceMemory::Get().Allocate(bytes, DeviceMemory::Source::kPool);
  if (*data == nullptr) return cudaErrorMemoryAllocation;
  TheTimeline().Add(Of(stream),
                    {.name = "cudaMallocAsync", .writes = {{*data, bytes}}});
  return cudaSuccess;
}

// One pool of all devices' memory.
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute,
                                    void* value) {
  const auto lock = Lock();
  uint64_t bytes = 0;
  switch (attribute) {
    case cudaMemPoolAttrReservedMemHigh:
      bytes = DeviceMemory::Get().peak_pool_bytes();
      break;
    case cudaMemPoolAttrReservedMemCurrent:
    case cudaMemPoolAttrUsedMemCurrent:
      bytes = DeviceMemory::Get().pool_bytes();
      break;
    default:
      return cudaErrorInvalidValue;
  }
  std::memcpy(value, &bytes, sizeof(bytes));
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const auto lock = Lock();
  *total = TheTimeline().settings().memory_bytes;
  *free = *total - DeviceMemory::Get().bytes();
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  const auto lock = Lock();
  if (Forbidden(stream, "cudaFreeAsync")) return kForbidden;
  const Region whole = DeviceMemory::Get().WholeAt(data);
  if (whole.data == nullptr) {
    TheTimeline().Report("cudaFreeAsync of what was not allocated");
    return cudaErrorInvalidValue;
  }
  TheTimeline().Add(
      Of(stream),
      {.name = "cudaFreeAsync", .writes = {whole}, .run = [data](const Op&) {
         DeviceMemory::Get().Free(data);
       }});
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** data, size_t bytes) {
  const auto lock = Lock();
  if (Forbidden("cudaMallocHost")) return kForbidden;
  *data = std::malloc(bytes);
  Pinned()[static_cast<const char*>(*data)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* data) {
  const auto lock = Lock();
  if (Forbidden("cudaFreeHost")) return kForbidden;
  Pinned().erase(static_cast<const char*>(data));
  std::free(data);
  return cudaSuccess;
}

// The host's side is read as late, and written as late, as the runtime allows:
// pinned memory when the copy runs, other memory before the call returns.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  const auto lock = Lock();
  if (kind != cudaMemcpyDeviceToDevice &&
      Forbidden(stream, "a copy of host memory")) {
    return kForbidden;
  }
  Op op = {.name = "copy"};
  if (kind != cudaMemcpyHostToDevice) op.reads.push_back({from, bytes});
  if (kind != cudaMemcpyDeviceToHost) op.writes.push_back({to, bytes});
  std::shared_ptr<std::vector<char>> taken;
  if (kind == cudaMemcpyHostToDevice && !IsPinned(from)) {
    const char* bytes_of_host = static_cast<const char*>(from);
    taken = std::make_shared<std::vector<char>>(bytes_of_host,
                                                bytes_of_host + bytes);
  }
  op.run = [=](const Op&) {
    if (bytes == 0) return;
    std::memcpy(to, taken != nullptr ? taken->data() : from, bytes);
    if (kind != cudaMemcpyDeviceToHost) cuda_sim::MarkWritten(to, bytes);
  };
  TheTimeline().Add(Of(stream), std::move(op));
  return cudaSuccess;
}

}  // extern "C"
