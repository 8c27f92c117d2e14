#include <memory>

#include "cuda_target.h"
#include "tests/support/cuda_sim/planted_bugs.h"

namespace lorica::cuda_sim {
namespace {

constexpr int kLast = kBugThreads - 1;

__device__ float* Shared() {
  return reinterpret_cast<float*>(cuda::DynamicShared());
}
__device__ int Thread() { return static_cast<int>(threadIdx.x); }

__global__ void Right(float* x) {
  float* s = Shared();
  s[Thread()] = x[Thread()];
  __syncthreads();
  x[Thread()] = s[kLast - Thread()];
}

__global__ void RightInAWarp(float* x) {
  __shared__ float s[kBugThreads];
  s[Thread()] = x[Thread()];
  __syncwarp();
  const float other = s[Thread() ^ 1];
  __syncwarp();
  s[Thread()] = other;
  x[Thread()] = other;
}

__global__ void RightCopy(float* x) {
  float* s = Shared();
  if (Thread() < kBugThreads / 4) {
    CopyAsync16(s + 4 * Thread(), x + 4 * Thread(), 16);
  }
  CommitCopies();
  cuda::WaitForCopies<0>();
  __syncthreads();
  x[Thread()] = s[kLast - Thread()];
}

__global__ void NoBarrier(float* x) {
  float* s = Shared();
  s[Thread()] = 0.0f;
  __syncthreads();
  s[Thread()] = x[Thread()];
  x[Thread()] = s[kLast - Thread()];
}

__global__ void NoBarrierBeforeReuse(float* x) {
  __shared__ float s[kBugThreads];
  for (int i = 0; i < 2; ++i) {
    s[Thread()] = x[Thread()];
    __syncthreads();
    x[Thread()] = s[kLast - Thread()];
  }
}

__global__ void NoWarpBarrier(float* x) {
  float* s = Shared();
  s[Thread()] = x[Thread()];
  x[Thread()] = s[Thread() ^ 1];
}

__global__ void CopyNotAwaited(float* x) {
  float* s = Shared();
  if (Thread() < kBugThreads / 4) {
    CopyAsync16(s + 4 * Thread(), x + 4 * Thread(), 16);
  }
  CommitCopies();
  __syncthreads();
  const float other = s[kLast - Thread()];
  __syncthreads();
  x[Thread()] = other;
}

__global__ void PastTheEnd(float* x) {
  x[Thread() == kLast ? kBugThreads : Thread()] = 1.0f;
}

__global__ void PastSharedMemory(float* x) {
  x[Thread()] = Shared()[kBugThreads];
}

__global__ void ReadsUnwritten(float* x) {
  __shared__ float s[kBugThreads];
  if (Thread() < kLast) s[Thread()] = x[Thread()];
  __syncthreads();
  x[Thread()] = s[Thread()];
}

__global__ void BlocksCollide(float* x) { x[Thread()] += 1.0f; }

__global__ void Misaligned(float* x) {
  if (Thread() == 0) *reinterpret_cast<double*>(x + 1) = 1.0;
}

__global__ void DifferentBarriers(float* x) {
  if (Thread() < kBugThreads / 2) {
    __syncthreads();
    x[Thread()] = 1.0f;
  } else {
    __syncthreads();
  }
}

__global__ void LanesLeftOut(float* x) {
  if (Thread() < 16) {
    x[Thread()] = __shfl_xor_sync(0xffffffffu, x[Thread()], 1);
  }
}

struct BugArguments {
  void (*kernel)(float*);
  float* x;
};

void RunThread(void* arguments) {
  const auto* self = static_cast<const BugArguments*>(arguments);
  self->kernel(self->x);
}

}  // namespace

const PlantedBug kPlantedBugs[] = {
    {"Right", Right, ""},
    {"RightInAWarp", RightInAWarp, ""},
    {"RightCopy", RightCopy, ""},
    {"NoBarrier", NoBarrier, "unordered"},
    {"NoBarrierBeforeReuse", NoBarrierBeforeReuse, "unordered"},
    {"NoWarpBarrier", NoWarpBarrier, "unordered"},
    {"CopyNotAwaited", CopyNotAwaited, "unordered"},
    {"PastTheEnd", PastTheEnd, "out of bounds"},
    {"PastSharedMemory", PastSharedMemory, "out of bounds"},
    {"ReadsUnwritten", ReadsUnwritten, "never written"},
    {"BlocksCollide", BlocksCollide, "unordered", 2},
    {"Misaligned", Misaligned, "misaligned"},
    {"DifferentBarriers", DifferentBarriers, "different barriers"},
    {"LanesLeftOut", LanesLeftOut, "waits forever"},
};
const int kNumPlantedBugs = sizeof kPlantedBugs / sizeof kPlantedBugs[0];

void RunPlantedBug(const PlantedBug& bug, float* x) {
  Run({.kernel = reinterpret_cast<const void*>(bug.kernel),
       .grid = dim3(bug.blocks),
       .block = dim3(kBugThreads),
       .shared_bytes = kBugThreads * sizeof(float),
       .arguments = std::make_shared<BugArguments>(BugArguments{bug.kernel, x}),
       .argument_bytes = sizeof(BugArguments),
       .run_thread = RunThread});
}

}  // namespace lorica::cuda_sim
