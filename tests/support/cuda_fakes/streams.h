// Streams, memory and ranks as the stand-ins' own tests use them.
#ifndef LORICA_TESTS_SUPPORT_CUDA_FAKES_STREAMS_H_
#define LORICA_TESTS_SUPPORT_CUDA_FAKES_STREAMS_H_

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

namespace lorica::cuda_fakes {

inline constexpr size_t kFloats = 8;
inline constexpr size_t kBytes = kFloats * sizeof(float);

// A stream pair of one rank and what runs on it.
struct Streams {
  Streams() {
    cudaSetDevice(0);
    cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  }
  ~Streams() { cudaEventDestroy(event); }

  // Work of `to` from now on follows what `from` has now.
  void Order(cudaStream_t from, cudaStream_t to) {
    cudaEventRecord(event, from);
    cudaStreamWaitEvent(to, event, 0);
  }

  cudaStream_t compute = nullptr;
  cudaStream_t other = nullptr;
  cudaEvent_t event = nullptr;
};

inline float* Allocate(cudaStream_t stream) {
  void* data = nullptr;
  cudaMallocAsync(&data, kBytes, stream);
  return static_cast<float*>(data);
}

inline void Fill(float* data, float value, cudaStream_t stream) {
  const std::vector<float> host(kFloats, value);
  cudaMemcpyAsync(data, host.data(), kBytes, cudaMemcpyHostToDevice, stream);
}

// Runs `body` as threads 0 and 1 with a communicator each.
inline void OnTwoRanks(
    const std::function<void(int rank, ncclComm_t comm)>& body) {
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      cudaSetDevice(rank);
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      ncclComm_t comm = nullptr;
      ncclResult_t result = ncclCommInitRankConfig(&comm, 2, id, rank, &config);
      while (result == ncclInProgress) ncclCommGetAsyncError(comm, &result);
      body(rank, comm);
      ncclCommFinalize(comm);
      ncclCommDestroy(comm);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

inline void Await(ncclComm_t comm) {
  ncclResult_t result = ncclInProgress;
  while (result == ncclInProgress) ncclCommGetAsyncError(comm, &result);
}

}  // namespace lorica::cuda_fakes

#endif  // LORICA_TESTS_SUPPORT_CUDA_FAKES_STREAMS_H_
