// That the stand-ins catch what they are there to catch, and nothing else.
#include "tests/support/cuda_fakes/fakes.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/dtype.h"
#include "tests/support/cuda_fakes/streams.h"

namespace lorica::cuda_fakes {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

class FakesTest : public testing::TestWithParam<Policy> {
 protected:
  void SetUp() override { Reset({.policy = GetParam(), .seed = 3}); }
};

INSTANTIATE_TEST_SUITE_P(Policies, FakesTest, testing::ValuesIn(kPolicies),
                         testing::PrintToStringParamName());

TEST_P(FakesTest, OrderedStreamsAreLeftAlone) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  for (int round = 0; round < 5; ++round) {
    Fill(a, static_cast<float>(round), s.compute);
    s.Order(s.compute, s.other);
    cudaMemcpyAsync(b, a, kBytes, cudaMemcpyDeviceToDevice, s.other);
    s.Order(s.other, s.compute);
  }
  std::vector<float> host(kFloats, -1.0f);
  cudaMemcpyAsync(host.data(), b, kBytes, cudaMemcpyDeviceToHost, s.compute);
  EXPECT_EQ(cudaStreamSynchronize(s.compute), cudaSuccess);
  EXPECT_EQ(host, std::vector<float>(kFloats, 4.0f));
  cudaFreeAsync(a, s.compute);
  cudaFreeAsync(b, s.compute);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_THAT(TakeReports(), IsEmpty());
  EXPECT_EQ(BytesAllocated(), 0u);
}

TEST_P(FakesTest, AMissingWaitIsReported) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.other);
  Fill(a, 1.0f, s.compute);
  cudaMemcpyAsync(b, a, kBytes, cudaMemcpyDeviceToDevice, s.other);
  cudaDeviceSynchronize();
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("nothing orders them")));
}

TEST_P(FakesTest, AWaitForAnEarlierRecordDoesNotOrderLaterWork) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  s.Order(s.compute, s.other);
  Fill(a, 1.0f, s.compute);  // After the record.
  cudaMemcpyAsync(b, a, kBytes, cudaMemcpyDeviceToDevice, s.other);
  cudaDeviceSynchronize();
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("nothing orders them")));
}

TEST_P(FakesTest, UseAfterFreeIsReported) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  s.Order(s.compute, s.other);
  cudaMemcpyAsync(b, a, kBytes, cudaMemcpyDeviceToDevice, s.other);
  cudaFreeAsync(a, s.compute);  // Nothing says that the copy is done.
  cudaDeviceSynchronize();
  EXPECT_THAT(TakeReports(),
              Contains(testing::AnyOf(HasSubstr("nothing orders them"),
                                      HasSubstr("outside any live"))));
}

TEST_P(FakesTest, SynchronizingOrdersWhatFollows) {
  Streams s;
  float* a = Allocate(s.compute);
  Fill(a, 1.0f, s.compute);
  cudaStreamSynchronize(s.compute);
  Fill(a, 2.0f, s.other);
  cudaDeviceSynchronize();
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST(LazyFakesTest, TheHostSeesNothingBeforeItWaits) {
  Reset({.policy = Policy::kLazyLast});
  Streams s;
  float* a = Allocate(s.compute);
  Fill(a, 1.0f, s.compute);
  std::vector<float> host(kFloats, -1.0f);
  cudaMemcpyAsync(host.data(), a, kBytes, cudaMemcpyDeviceToHost, s.compute);
  EXPECT_EQ(host[0], -1.0f);
  EXPECT_EQ(cudaStreamSynchronize(s.compute), cudaSuccess);
  EXPECT_EQ(host[0], 1.0f);
}

TEST(LazyFakesTest, PinnedMemoryIsReadLate) {
  Reset({.policy = Policy::kLazyLast});
  Streams s;
  float* a = Allocate(s.compute);
  void* pinned = nullptr;
  cudaMallocHost(&pinned, kBytes);
  float* host = static_cast<float*>(pinned);
  host[0] = 1.0f;
  cudaMemcpyAsync(a, host, kBytes, cudaMemcpyHostToDevice, s.compute);
  host[0] = 2.0f;  // Too early.
  cudaMemcpyAsync(host + 1, a, sizeof(float), cudaMemcpyDeviceToHost,
                  s.compute);
  cudaStreamSynchronize(s.compute);
  EXPECT_EQ(host[1], 2.0f);
  cudaFreeHost(pinned);
}

TEST_P(FakesTest, CollectivesOfThreadsMeet) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    Streams s;
    float* a = Allocate(s.compute);
    Fill(a, static_cast<float>(rank + 1), s.compute);
    s.Order(s.compute, s.other);
    ncclAllReduce(a, a, kFloats, ncclFloat32, ncclSum, comm, s.other);
    Await(comm);
    s.Order(s.other, s.compute);
    std::vector<float> host(kFloats);
    cudaMemcpyAsync(host.data(), a, kBytes, cudaMemcpyDeviceToHost, s.compute);
    EXPECT_EQ(cudaStreamSynchronize(s.compute), cudaSuccess);
    EXPECT_EQ(host, std::vector<float>(kFloats, 3.0f));
  });
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST_P(FakesTest, ACollectiveWithoutAWaitIsReported) {
  OnTwoRanks([](int, ncclComm_t comm) {
    Streams s;
    float* a = Allocate(s.compute);
    Fill(a, 1.0f, s.compute);
    ncclAllReduce(a, a, kFloats, ncclFloat32, ncclSum, comm, s.other);
    Await(comm);
    cudaStreamSynchronize(s.other);
    cudaStreamSynchronize(s.compute);
  });
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("nothing orders them")));
}

TEST_P(FakesTest, DifferentCollectivesAreReported) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    Streams s;
    float* a = Allocate(s.compute);
    ncclAllReduce(a, a, rank == 0 ? kFloats : kFloats - 1, ncclFloat32, ncclSum,
                  comm, s.compute);
    Await(comm);
    cudaStreamSynchronize(s.compute);
  });
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("where rank")));
}

TEST_P(FakesTest, AnExtraCollectiveIsADeadlockReport) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    Streams s;
    float* a = Allocate(s.compute);
    for (int call = 0; call < 2 + (rank == 0 ? 1 : 0); ++call) {
      ncclAllReduce(a, a, kFloats, ncclFloat32, ncclSum, comm, s.compute);
      Await(comm);
    }
    EXPECT_EQ(cudaStreamSynchronize(s.compute),
              rank == 0 ? cudaErrorUnknown : cudaSuccess);
  });
  EXPECT_THAT(TakeReports(), Contains(testing::AllOf(HasSubstr("deadlock"),
                                                     HasSubstr("for rank 1"))));
}

// A block registered by each of two ranks, and what a rank does with it.
void WithRegistered(const std::function<void(ncclComm_t comm, void* data,
                                             void* handle)>& body) {
  OnTwoRanks([&](int, ncclComm_t comm) {
    void* data = nullptr;
    void* handle = nullptr;
    ncclMemAlloc(&data, kBytes);
    ncclCommRegister(comm, data, kBytes, &handle);
    body(comm, data, handle);
  });
}

TEST_P(FakesTest, MemoryThatGoesBeforeItsRegistrationIsReported) {
  WithRegistered([](ncclComm_t comm, void* data, void* handle) {
    ncclMemFree(data);
    ncclCommDeregister(comm, handle);
  });
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("freed that is registered")));
}

TEST_P(FakesTest, ARegistrationThatStaysIsReported) {
  WithRegistered([](ncclComm_t, void*, void*) {});
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("memory still registered")));
}

TEST_P(FakesTest, ARegistrationOfNothingIsReported) {
  OnTwoRanks([](int, ncclComm_t comm) {
    float host[kFloats];
    void* handle = nullptr;
    ncclCommRegister(comm, host, kBytes, &handle);
    ncclCommDeregister(comm, handle);
    ncclCommDeregister(comm, handle);
  });
  const std::vector<std::string> reports = TakeReports();
  EXPECT_THAT(reports, Contains(HasSubstr("outside any live allocation")));
  EXPECT_THAT(reports, Contains(HasSubstr("of no registration")));
}

TEST_P(FakesTest, ARegistrationThatEndsBeforeACollectiveDoesIsReported) {
  WithRegistered([](ncclComm_t comm, void* data, void* handle) {
    const Streams s;
    ncclAllReduce(data, data, kFloats, ncclFloat32, ncclSum, comm, s.compute);
    Await(comm);
    ncclCommDeregister(comm, handle);
    cudaStreamSynchronize(s.compute);
    ncclMemFree(data);
  });
  // The other rank may have run it by then, but nobody has waited for it.
  EXPECT_THAT(
      TakeReports(),
      Contains(testing::ContainsRegex("ncclCommDeregister (before|of)")));
  EXPECT_EQ(RegisteredCalls(), 2);
}

TEST_P(FakesTest, AbortLetsTheOthersGoOn) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    Streams s;
    float* a = Allocate(s.compute);
    if (rank == 1) {
      ncclCommAbort(comm);
      return;
    }
    ncclAllReduce(a, a, kFloats, ncclFloat32, ncclSum, comm, s.compute);
    Await(comm);
    std::thread([comm] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      ncclCommAbort(comm);
    }).join();
    EXPECT_EQ(cudaStreamSynchronize(s.compute), cudaSuccess);
  });
  EXPECT_THAT(TakeReports(), IsEmpty());
}

}  // namespace
}  // namespace lorica::cuda_fakes
