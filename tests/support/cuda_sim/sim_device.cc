#include "tests/support/cuda_sim/sim_device.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/allocator.h"
#include "runtime/check.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.h"
#include "runtime/dtype.h"
#include "runtime/recording.h"
#include "tests/support/cuda_sim/simulator.h"

namespace lorica {

namespace {

// What stands behind the Queue pointers of this device. Scratch is asked for
// anew each time, so that what an earlier kernel left there is not read.
class SimQueue {
 public:
  ~SimQueue() {
    for (void* block : scratch_) Drop(block);
  }
  void* Scratch(cuda::ScratchUse use, size_t bytes) {
    void*& block = scratch_[static_cast<size_t>(use)];
    Drop(block);
    block = cuda_sim::Allocate(bytes);
    return block;
  }

 private:
  static void Drop(void* block) {
    if (block != nullptr) cuda_sim::Free(block);
  }

  void* scratch_[static_cast<size_t>(cuda::ScratchUse::kCount)] = {};
};

}  // namespace

namespace cuda {

cudaStream_t StreamOf(Queue*) { return nullptr; }

void* ScratchFor(Queue* queue, ScratchUse use, size_t bytes) {
  return reinterpret_cast<SimQueue*>(queue)->Scratch(use, bytes);
}

bool IsRecorded(Queue*) { return false; }

const void* RecordedTable(Queue*, const RecordTable&,
                          const ArrayView<Segment>&) {
  LOG(FATAL) << "nothing is recorded";
}

void CheckLaunch(cudaError_t error, const void*) {
  CHECK_EQ(error, cudaSuccess);
}

namespace {

float At(const View& v, int64_t row, int64_t col) {
  const int64_t i = row * v.row_stride + col;
  return v.dtype == DType::kBF16 ? static_cast<float>(v.As<BFloat16>()[i])
                                 : v.As<float>()[i];
}

void Put(const View& v, int64_t row, int64_t col, float value) {
  const int64_t i = row * v.row_stride + col;
  void* to;
  if (v.dtype == DType::kBF16) {
    to = v.As<BFloat16>() + i;
    v.As<BFloat16>()[i] = BFloat16(value);
  } else {
    to = v.As<float>() + i;
    v.As<float>()[i] = value;
  }
  cuda_sim::MarkWritten(to, SizeOf(v.dtype));
}

}  // namespace

void Matmul(Queue* queue, const MatmulArgs& args) {
  if (IsThin(args)) return ThinMatmul(queue, args);
  const auto& [form, a, b, y, bias, scale, update] = args;
  const int64_t depth = form == MatmulForm::kTN ? a.rows : a.cols;
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t c = 0; c < y.cols; ++c) {
      float sum = 0.0f;
      for (int64_t k = 0; k < depth; ++k) {
        sum += (form == MatmulForm::kTN ? At(a, k, r) : At(a, r, k)) *
               (form == MatmulForm::kNT ? At(b, c, k) : At(b, k, c));
      }
      const float before = update == Update::kAdd ? At(y, r, c) : 0.0f;
      const float added = bias.present() ? At(bias, 0, c) : 0.0f;
      Put(y, r, c, before + scale * sum + added);
    }
  }
}

}  // namespace cuda

namespace {

void* Allocate(Queue*, size_t bytes) { return cuda_sim::Allocate(bytes); }
void Release(Queue*, void* data, size_t) { cuda_sim::Free(data); }

void CopyIn(Queue*, void* dst, const void* host, size_t bytes) {
  std::memcpy(dst, host, bytes);
  cuda_sim::MarkWritten(dst, bytes);
}

void CopyOut(Queue*, void* host, const void* src, size_t bytes) {
  std::memcpy(host, src, bytes);
}

void Synchronize(Queue*) {}

int64_t PeakMemory(Queue*) { return 0; }
int64_t FreeMemory(Queue*) { return 0; }

void NoLoraForward(Queue*, const LoraForwardArgs&) {
  LOG(FATAL) << "not a kernel";
}
void NoLoraBackward(Queue*, const LoraBackwardArgs&) {
  LOG(FATAL) << "not a kernel";
}

constexpr Backend kSimBackend = {
    .name = "cuda_sim",
    .memory = Memory::kDevice,
    .allocate = Allocate,
    .release = Release,
    .copy_in = CopyIn,
    .copy_out = CopyOut,
    .synchronize = Synchronize,
    .peak_memory = PeakMemory,
    .free_memory = FreeMemory,
    .recorder = NoRecorder,
    .fill = cuda::Fill,
    .convert = cuda::Convert,
    .scatter_pieces = cuda::ScatterPieces,
    .add = cuda::Add,
    .squared_norm = cuda::SquaredNorm,
    .matmul = cuda::Matmul,
    .lora_forward = NoLoraForward,
    .lora_backward = NoLoraBackward,
    .rms_norm = cuda::RmsNorm,
    .rms_norm_backward = cuda::RmsNormBackward,
    .layer_norm = cuda::LayerNorm,
    .layer_norm_backward = cuda::LayerNormBackward,
    .rope = cuda::Rope,
    .swiglu = cuda::Swiglu,
    .swiglu_backward = cuda::SwigluBackward,
    .gelu = cuda::Gelu,
    .gelu_backward = cuda::GeluBackward,
    .attention = cuda::Attention,
    .attention_backward = cuda::AttentionBackward,
    .gather_rows = cuda::GatherRows,
    .scatter_rows = cuda::ScatterRows,
    .dropout = cuda::Dropout,
    .logit_stats = cuda::LogitStats,
    .merge_logit_stats = cuda::MergeLogitStats,
    .logit_grad = cuda::LogitGrad,
    .adamw = cuda::AdamW,
};

}  // namespace

std::unique_ptr<Device> OpenSimDevice() {
  const auto owner = std::make_shared<SimQueue>();
  std::shared_ptr<Queue> queue(owner, reinterpret_cast<Queue*>(owner.get()));
  auto allocator = std::make_unique<Allocator>(&kSimBackend, queue.get(),
                                               Allocation::kDirect);
  return std::make_unique<Device>(&kSimBackend, std::move(queue),
                                  std::move(allocator));
}

}  // namespace lorica
