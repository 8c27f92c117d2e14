#include "runtime/backend.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/allocator.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"
#include "runtime/device.h"

namespace lorica {
namespace {

void* Allocate(Queue*, size_t bytes) {
  const size_t unit = Allocator::kAlignment;
  return std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
}

void Release(Queue*, void* data, size_t) { std::free(data); }

void CopyIn(Queue*, void* dst, const void* host, size_t bytes) {
  std::memcpy(dst, host, bytes);
}

void CopyOut(Queue*, void* host, const void* src, size_t bytes) {
  std::memcpy(host, src, bytes);
}

// Entries of the CPU have done their work when they return.
void Synchronize(Queue*) {}

constexpr Backend kCpuBackend = {
    .name = "cpu",
    .allocate = Allocate,
    .release = Release,
    .copy_in = CopyIn,
    .copy_out = CopyOut,
    .synchronize = Synchronize,
    .fill = cpu::Fill,
    .convert = cpu::Convert,
    .add = cpu::Add,
    .squared_norm = cpu::SquaredNorm,
    .matmul = cpu::Matmul,
    .lora_forward = cpu::LoraForward,
    .lora_backward = cpu::LoraBackward,
    .rms_norm = cpu::RmsNorm,
    .rms_norm_backward = cpu::RmsNormBackward,
    .rope = cpu::Rope,
    .swiglu = cpu::Swiglu,
    .swiglu_backward = cpu::SwigluBackward,
    .attention = cpu::Attention,
    .attention_backward = cpu::AttentionBackward,
    .gather_rows = cpu::GatherRows,
    .scatter_rows = cpu::ScatterRows,
    .dropout = cpu::Dropout,
    .logit_stats = cpu::LogitStats,
    .logit_grad = cpu::LogitGrad,
    .adamw = cpu::AdamW,
};

}  // namespace

std::unique_ptr<Device> OpenCpuDevice(const CpuOptions& options) {
  auto queue = std::make_shared<Queue>(options);
  auto allocator = std::make_unique<Allocator>(&kCpuBackend, queue.get(),
                                               options.allocation);
  return std::make_unique<Device>(&kCpuBackend, std::move(queue),
                                  std::move(allocator));
}

}  // namespace lorica
