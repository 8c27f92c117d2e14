#include "runtime/backend.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/allocator.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/lora.h"
#include "runtime/cuda/product_choices.h"
#include "runtime/cuda/queue.h"
#include "runtime/cuda/side_device.h"
#include "runtime/device.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

using cuda::Of;
using cuda::StreamOf;

void* Allocate(Queue* queue, size_t bytes) {
  cuda::CheckNotCaptured(queue, "a request for memory");
  void* data = nullptr;
  const cudaError_t error = cudaMallocAsync(&data, bytes, StreamOf(queue));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // Or the next launch would report it.
    return nullptr;
  }
  CUDA_CHECK(error);
  return data;
}

void Release(Queue* queue, void* data, size_t) {
  CUDA_CHECK(cudaFreeAsync(data, StreamOf(queue)));
}

void CopyIn(Queue* queue, void* dst, const void* host, size_t bytes) {
  cuda::CheckNotCaptured(queue, "a copy from the host");
  Of(queue)->ring.CopyIn(dst, host, bytes, StreamOf(queue));
}

void CopyOut(Queue* queue, void* host, const void* src, size_t bytes) {
  cuda::CheckNotCaptured(queue, "a copy to the host");
  CUDA_CHECK(cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost,
                             StreamOf(queue)));
}

void Synchronize(Queue* queue) {
  CUDA_CHECK(cudaStreamSynchronize(StreamOf(queue)));
}

// Of the driver's pool, from which cudaMallocAsync takes.
int64_t PoolBytes(cudaMemPoolAttr attribute) {
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  cudaMemPool_t pool = nullptr;
  CUDA_CHECK(cudaDeviceGetMemPool(&pool, device));
  uint64_t bytes = 0;
  CUDA_CHECK(cudaMemPoolGetAttribute(pool, attribute, &bytes));
  return static_cast<int64_t>(bytes);
}

// What cudaMallocAsync took, blocks that the pool of runtime/allocator.h keeps
// and scratch memory, and what is counted beside it; not what libraries take by
// themselves.
int64_t PeakMemory(Queue* queue) {
  return PoolBytes(cudaMemPoolAttrReservedMemHigh) + Of(queue)->most_held_bytes;
}

// The driver's, and what its pool holds and nobody uses.
int64_t FreeMemory(Queue*) {
  size_t free = 0;
  size_t total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free) +
         PoolBytes(cudaMemPoolAttrReservedMemCurrent) -
         PoolBytes(cudaMemPoolAttrUsedMemCurrent);
}

Recorder* RecorderOf(Queue* queue) { return &Of(queue)->recorder; }

void Attention(Queue* queue, const AttentionArgs& args) {
  if (!Of(queue)->attention->Forward(queue, args)) cuda::Attention(queue, args);
}

void AttentionBackward(Queue* queue, const AttentionBackwardArgs& args) {
  if (!Of(queue)->attention->Backward(queue, args)) {
    cuda::AttentionBackward(queue, args);
  }
}

// A layer's launches, and the collectives of tensor ranks, are as many for one
// token as for all of a pass. What a Llama of 8B parameters keeps for backward,
// BF16 and CHEAP, is 3 MB a token: 25 GB a pass.
constexpr int64_t kPassTokens = 8192;

// Each chunk reads the head's weights twice: for less than some 250 rows that
// takes longer than the products, and dh [rows, H] has too few tiles for all
// multiprocessors. The exponentials of a vocabulary of 128256 take 263 MB in
// BF16.
constexpr int64_t kLossRows = 1024;

// The F32 logits of a tile, 34 MB with as many rows, stay in the second-level
// cache while their exponentials are taken.
constexpr int64_t kLogitTile = 8192;

constexpr Backend kCudaBackend = {
    .name = "cuda",
    .memory = Memory::kDevice,
    .linear_layout = LinearLayout::kBordered,
    .pass_tokens = kPassTokens,
    .loss_rows = kLossRows,
    .logit_tile = kLogitTile,
    .allocate = Allocate,
    .release = Release,
    .copy_in = CopyIn,
    .copy_out = CopyOut,
    .synchronize = Synchronize,
    .peak_memory = PeakMemory,
    .free_memory = FreeMemory,
    .recorder = RecorderOf,
    .fill = cuda::Fill,
    .convert = cuda::Convert,
    .scatter_pieces = cuda::ScatterPieces,
    .add = cuda::Add,
    .squared_norm = cuda::SquaredNorm,
    .matmul = cuda::Matmul,
    .lora_forward = cuda::LoraForward,
    .lora_backward = cuda::LoraBackward,
    .rms_norm = cuda::RmsNorm,
    .rms_norm_backward = cuda::RmsNormBackward,
    .layer_norm = cuda::LayerNorm,
    .layer_norm_backward = cuda::LayerNormBackward,
    .rope = cuda::Rope,
    .swiglu = cuda::Swiglu,
    .swiglu_backward = cuda::SwigluBackward,
    .gelu = cuda::Gelu,
    .gelu_backward = cuda::GeluBackward,
    .attention = Attention,
    .attention_backward = AttentionBackward,
    .gather_rows = cuda::GatherRows,
    .scatter_rows = cuda::ScatterRows,
    .dropout = cuda::Dropout,
    .logit_stats = cuda::LogitStats,
    .merge_logit_stats = cuda::MergeLogitStats,
    .logit_grad = cuda::LogitGrad,
    .adamw = cuda::AdamW,
};

// Of compute capability 8.0: BF16 products on tensor cores.
constexpr int kLeastMajor = 8;

std::string UuidOf(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (size_t i = 0; i < sizeof(uuid.bytes); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    absl::StrAppendFormat(&text, "%02x",
                          static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

absl::Status Failed(const char* what, cudaError_t error) {
  return absl::UnavailableError(absl::StrCat(
      what, ": ", cudaGetErrorName(error), ", ", cudaGetErrorString(error)));
}

// A queue of the current GPU and what works on it.
std::unique_ptr<Device> OpenQueue(Allocation allocation,
                                  cuda::StreamPriority priority) {
  auto queue = std::make_shared<cuda::StreamQueue>(priority);
  auto allocator =
      std::make_unique<Allocator>(&kCudaBackend, queue.get(), allocation);
  return std::make_unique<Device>(&kCudaBackend, std::move(queue),
                                  std::move(allocator));
}

}  // namespace

absl::StatusOr<std::vector<CudaDevice>> ListCudaDevices() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice) return std::vector<CudaDevice>();
  if (error != cudaSuccess) return Failed("the CUDA driver", error);
  std::vector<CudaDevice> devices;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties = {};
    error = cudaGetDeviceProperties(&properties, index);
    if (error != cudaSuccess) {
      return Failed(absl::StrCat("GPU ", index).c_str(), error);
    }
    devices.push_back(
        {.name = properties.name,
         .uuid = UuidOf(properties.uuid),
         .major = properties.major,
         .minor = properties.minor,
         .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem)});
  }
  return devices;
}

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(
    const CudaOptions& options) {
  LORICA_ASSIGN_OR_RETURN(const std::vector<CudaDevice> devices,
                          ListCudaDevices());
  if (options.index < 0 || options.index >= std::ssize(devices)) {
    return absl::NotFoundError(absl::StrCat("there is no GPU ", options.index,
                                            ", but ", devices.size(),
                                            " of them, counted from 0"));
  }
  const CudaDevice& chosen = devices[static_cast<size_t>(options.index)];
  if (chosen.major < kLeastMajor) {
    return absl::FailedPreconditionError(absl::StrCat(
        "GPU ", options.index, ", ", chosen.name, ", has compute capability ",
        chosen.major, ".", chosen.minor, "; lorica needs ", kLeastMajor,
        ".0, as in A100, or later"));
  }
  std::unique_ptr<cuda::ProductChoices> choices;
  if (!options.product_choices.empty()) {
    LORICA_ASSIGN_OR_RETURN(
        choices, cuda::ProductChoices::Open(
                     options.product_choices, chosen.name,
                     cuda::MatmulPlans::LibraryVersion(), options.missing));
  }
  const cudaError_t error = cudaSetDevice(options.index);
  if (error != cudaSuccess) return Failed(chosen.name.c_str(), error);
  std::unique_ptr<Device> device =
      OpenQueue(options.allocation, cuda::StreamPriority::kNormal);
  cuda::StreamQueue* queue = cuda::Of(device->queue());
  queue->attention->Choose(options.attention);
  queue->matmuls.UseChoices(std::move(choices));
  return device;
}

std::unique_ptr<Device> cuda::OpenSideDevice() {
  return OpenQueue(Allocation::kDirect, cuda::StreamPriority::kHigh);
}

}  // namespace lorica
