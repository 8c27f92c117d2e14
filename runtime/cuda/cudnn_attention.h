// Attention of the CUDA table by cuDNN where it has the shape.
#ifndef LORICA_RUNTIME_CUDA_CUDNN_ATTENTION_H_
#define LORICA_RUNTIME_CUDA_CUDNN_ATTENTION_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "runtime/backend.h"
#include "runtime/cuda/sdpa.h"
#include "runtime/device.h"

namespace lorica::cuda {

// Plans and calls of the library. Out and lse are what lorica's own kernels
// make of the same arguments, up to rounding, so that either may compute the
// backward pass of the other's forward pass.
//
// The library has self-attention of BF16 (every segment with as many keys as
// queries, in the order of their rows), heads of a multiple of eight elements
// and matrices whose rows are at multiples of 16 bytes.
class CudnnAttention {
 public:
  // A plan that wants more, or more than a sixteenth of the GPU's memory, is
  // not used: its records are taken in several calls then.
  static constexpr size_t kMaxWorkspaceBytes = size_t{4} << 30;
  // Plans kept, the latest ones.
  static constexpr size_t kCapacity = 256;

  explicit CudnnAttention(cudaStream_t stream);
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  // The kernels to use from now on; kOwn before the first call, and where the
  // library is wanted and is not there.
  void Choose(AttentionKernels choice);

  // Enqueue the computation on the queue's stream, or return false: it is for
  // the caller to compute.
  bool Forward(Queue* queue, const AttentionArgs& args);
  bool Backward(Queue* queue, const AttentionBackwardArgs& args);

  // The longest record of the plans that serve records of up to `longest`
  // tokens; 0 where no library computes.
  int64_t LongestOfPlans(int64_t longest) const;

  // Shapes asked for so far, whether the library has them or not.
  size_t plans() const { return plans_.size(); }
  // Calls that the library has computed.
  int64_t calls() const { return calls_; }

 private:
  struct Call;
  struct Kept {
    std::shared_ptr<SdpaPlan> plan;  // Null where the library has none.
    bool too_large = false;          // It has one, but see most_workspace_.
    uint64_t last_use = 0;
  };

  // Numbers about records, as the device has them.
  struct Uploaded {
    std::vector<int32_t> numbers;
    const int32_t* data = nullptr;
  };

  bool Run(Queue* queue, Call* call);
  const Kept& Find(const SdpaShape& shape);
  // The call's records are cut in groups until they have a plan.
  std::shared_ptr<SdpaPlan> PlanFor(Call* call);
  const int32_t* Numbers(Queue* queue, const Call& call);
  const int32_t* Upload(Queue* queue, Direction direction,
                        std::vector<int32_t> numbers);

  cudaStream_t stream_;
  AttentionKernels choice_ = AttentionKernels::kOwn;
  std::unique_ptr<SdpaLibrary> library_;
  size_t most_workspace_ = 0;
  std::map<SdpaShape, Kept> plans_;
  uint64_t uses_ = 0;
  int64_t calls_ = 0;
  Uploaded uploaded_[2];  // By direction.
};

// The least number of the form 2^n or 3 * 2^n, n >= 0, that is not below
// `value`: so few that plans for one serve many shapes, and at most half as
// much again.
int64_t RoundedUp(int64_t value);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_CUDNN_ATTENTION_H_
