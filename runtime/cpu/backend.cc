#include "runtime/backend.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/allocator.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"
#include "runtime/device.h"
#include "runtime/recording.h"

namespace lorica {
namespace {

void* Allocate(Queue*, size_t bytes) {
  const size_t unit = Allocator::kAlignment;
  return std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
}

void Release(Queue*, void* data, size_t) { std::free(data); }

void CopyIn(Queue*, void* dst, const void* host, size_t bytes) {
  if (bytes > 0) std::memcpy(dst, host, bytes);  // Empty arrays are null.
}

void CopyOut(Queue*, void* host, const void* src, size_t bytes) {
  if (bytes > 0) std::memcpy(host, src, bytes);
}

// Entries of the CPU have done their work when they return.
void Synchronize(Queue*) {}

int64_t PeakMemory(Queue*) { return 0; }
int64_t FreeMemory(Queue*) { return 0; }

// Products run at full speed from a few hundred tokens on, while activations
// grow with every token.
constexpr int64_t kPassTokens = 512;

// Large enough for full speed of the products, small enough that the
// exponentials (rows x vocabulary) stay a few tens of MB.
constexpr int64_t kLossRows = 256;

// A tile of logits stays in the second-level cache while its exponentials are
// taken.
constexpr int64_t kLogitTile = 2048;

constexpr Backend kCpuBackend = {
    .name = "cpu",
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
    .recorder = NoRecorder,
    .fill = OnQueue<cpu::Fill>::Call,
    .convert = OnQueue<cpu::Convert>::Call,
    .scatter_pieces = OnQueue<cpu::ScatterPieces>::Call,
    .add = OnQueue<cpu::Add>::Call,
    .squared_norm = OnQueue<cpu::SquaredNorm>::Call,
    .matmul = OnQueue<cpu::Matmul>::Call,
    .lora_forward = OnQueue<cpu::LoraForward>::Call,
    .lora_backward = OnQueue<cpu::LoraBackward>::Call,
    .rms_norm = OnQueue<cpu::RmsNorm>::Call,
    .rms_norm_backward = OnQueue<cpu::RmsNormBackward>::Call,
    .layer_norm = OnQueue<cpu::LayerNorm>::Call,
    .layer_norm_backward = OnQueue<cpu::LayerNormBackward>::Call,
    .rope = OnQueue<cpu::Rope>::Call,
    .swiglu = OnQueue<cpu::Swiglu>::Call,
    .swiglu_backward = OnQueue<cpu::SwigluBackward>::Call,
    .gelu = OnQueue<cpu::Gelu>::Call,
    .gelu_backward = OnQueue<cpu::GeluBackward>::Call,
    .attention = OnQueue<cpu::Attention>::Call,
    .attention_backward = OnQueue<cpu::AttentionBackward>::Call,
    .gather_rows = OnQueue<cpu::GatherRows>::Call,
    .scatter_rows = OnQueue<cpu::ScatterRows>::Call,
    .dropout = OnQueue<cpu::Dropout>::Call,
    .logit_stats = OnQueue<cpu::LogitStats>::Call,
    .merge_logit_stats = OnQueue<cpu::MergeLogitStats>::Call,
    .logit_grad = OnQueue<cpu::LogitGrad>::Call,
    .adamw = OnQueue<cpu::AdamW>::Call,
};

}  // namespace

std::unique_ptr<Device> OpenCpuDevice(const CpuOptions& options) {
  auto queue = std::make_shared<cpu::Queue>(options);
  auto allocator = std::make_unique<Allocator>(&kCpuBackend, queue.get(),
                                               options.allocation);
  return std::make_unique<Device>(&kCpuBackend, std::move(queue),
                                  std::move(allocator));
}

}  // namespace lorica
