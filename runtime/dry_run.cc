#include "runtime/dry_run.h"

#include <cstdint>

#include "runtime/recording.h"

namespace lorica {
namespace {

template <typename... Args>
void Skip(Args...) {}

// Never asked: what is reserved is more than there is.
void* NoMemory(Queue*, size_t) { return nullptr; }

Backend TableLike(const Backend& device) {
  return {
      .name = device.name,
      .effect = Effect::kNone,
      .memory = device.memory,
      .linear_layout = device.linear_layout,
      .pass_tokens = device.pass_tokens,
      .loss_rows = device.loss_rows,
      .logit_tile = device.logit_tile,
      .allocate = NoMemory,
      .release = Skip,
      .copy_in = Skip,
      .copy_out = Skip,
      .synchronize = Skip,
      .peak_memory = device.peak_memory,
      .free_memory = device.free_memory,
      .recorder = NoRecorder,
      .fill = Skip,
      .convert = Skip,
      .scatter_pieces = Skip,
      .add = Skip,
      .squared_norm = Skip,
      .matmul = Skip,
      .lora_forward = Skip,
      .lora_backward = Skip,
      .rms_norm = Skip,
      .rms_norm_backward = Skip,
      .layer_norm = Skip,
      .layer_norm_backward = Skip,
      .rope = Skip,
      .swiglu = Skip,
      .swiglu_backward = Skip,
      .gelu = Skip,
      .gelu_backward = Skip,
      .attention = Skip,
      .attention_backward = Skip,
      .gather_rows = Skip,
      .scatter_rows = Skip,
      .dropout = Skip,
      .logit_stats = Skip,
      .merge_logit_stats = Skip,
      .logit_grad = Skip,
      .adamw = Skip,
  };
}

// Where no process has memory, for each kind.
constexpr size_t kReserveBytes = size_t{1} << 60;

}  // namespace

DryRun::DryRun(Device* device)
    : device_(device),
      before_(&device->backend()),
      table_(TableLike(*before_)),
      memory_(&table_, device->queue(), Allocation::kPool),
      scope_(device, &memory_) {
  for (const Lifetime lifetime : {Lifetime::kOps, Lifetime::kPass}) {
    const auto begin = (static_cast<uintptr_t>(lifetime) + 1) * kReserveBytes;
    memory_.Reserve(lifetime, reinterpret_cast<void*>(begin), kReserveBytes);
  }
  memory_.BeginPlan(&requests_);
  device_->Interpose(&table_);
}

DryRun::~DryRun() { device_->Interpose(before_); }

MemoryPlan DryRun::taken() const {
  uint64_t places = 0;
  for (const Allocator::Plan::Request& request : requests_.requests) {
    places = Mixed(Mixed(places, request.bytes),
                   reinterpret_cast<uintptr_t>(request.data));
  }
  return {.ops = memory_.reserve_used(Lifetime::kOps),
          .pass = memory_.reserve_used(Lifetime::kPass),
          .places = places};
}

}  // namespace lorica
