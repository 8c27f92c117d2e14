// What the stand-ins make of streams that are captured: graphs that run what
// they should, and a report of each mistake.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/cuda_fakes/streams.h"

namespace lorica::cuda_fakes {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

class GraphsTest : public testing::TestWithParam<Policy> {
 protected:
  void SetUp() override { Reset({.policy = GetParam(), .seed = 3}); }
};

INSTANTIATE_TEST_SUITE_P(Policies, GraphsTest, testing::ValuesIn(kPolicies),
                         testing::PrintToStringParamName());

// The graph of what `body` gives the stream; null where there is none.
cudaGraphExec_t Capture(
    cudaStream_t stream, const std::function<void()>& body,
    cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) {
  EXPECT_EQ(cudaStreamBeginCapture(stream, mode), cudaSuccess);
  body();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  if (cudaStreamEndCapture(stream, &graph) != cudaSuccess) return nullptr;
  EXPECT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  cudaGraphDestroy(graph);
  return exec;
}

TEST_P(GraphsTest, AGraphRunsAtEachLaunchAndNotBefore) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  Fill(b, -1.0f, s.compute);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    cudaMemcpyAsync(b, a, kBytes, cudaMemcpyDeviceToDevice, s.compute);
  });
  ASSERT_NE(graph, nullptr);
  std::vector<float> seen;
  for (int launch = 0; launch < 3; ++launch) {
    Fill(a, static_cast<float>(launch), s.compute);
    if (launch > 0) cudaGraphLaunch(graph, s.compute);
    std::vector<float> host(kFloats);
    cudaMemcpyAsync(host.data(), b, kBytes, cudaMemcpyDeviceToHost, s.compute);
    EXPECT_EQ(cudaStreamSynchronize(s.compute), cudaSuccess);
    seen.push_back(host[0]);
  }
  EXPECT_EQ(seen, (std::vector<float>{-1.0f, 1.0f, 2.0f}));
  cudaGraphExecDestroy(graph);
  EXPECT_EQ(GraphLaunches(), 2);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST_P(GraphsTest, ALaunchThatNothingOrdersIsReported) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    cudaMemcpyAsync(b, a, kBytes, cudaMemcpyDeviceToDevice, s.compute);
  });
  s.Order(s.compute, s.other);
  cudaGraphLaunch(graph, s.compute);
  Fill(a, 1.0f, s.other);  // While the graph reads it.
  cudaDeviceSynchronize();
  cudaGraphExecDestroy(graph);
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("nothing orders them")));
}

TEST_P(GraphsTest, CallsThatHaveNoPlaceInACaptureAreReported) {
  Streams s;
  float* a = Allocate(s.compute);
  float host[kFloats];
  void* memory = nullptr;
  cudaEventRecord(s.event, s.other);
  const std::vector<std::function<cudaError_t()>> calls = {
      [&] { return cudaStreamSynchronize(s.compute); },
      [&] { return cudaDeviceSynchronize(); },
      [&] { return cudaEventSynchronize(s.event); },
      [&] { return cudaEventQuery(s.event); },
      [&] { return cudaMallocAsync(&memory, kBytes, s.compute); },
      [&] { return cudaFreeAsync(a, s.compute); },
      [&] { return cudaMallocHost(&memory, kBytes); },
      [&] {
        return cudaMemcpyAsync(a, host, kBytes, cudaMemcpyHostToDevice,
                               s.compute);
      },
      [&] {
        return cudaMemcpyAsync(host, a, kBytes, cudaMemcpyDeviceToHost,
                               s.compute);
      }};
  for (size_t i = 0; i < calls.size(); ++i) {
    const cudaGraphExec_t graph = Capture(s.compute, [&] {
      EXPECT_EQ(calls[i](), cudaErrorStreamCaptureUnsupported) << i;
    });
    EXPECT_EQ(graph, nullptr) << i;
    EXPECT_THAT(TakeReports(), Contains(HasSubstr("no place in"))) << i;
  }
}

TEST_P(GraphsTest, OnlyAGlobalCaptureForbidsOtherThreadsTheirQuestions) {
  Streams s;
  cudaEventRecord(s.event, s.other);
  for (const auto mode :
       {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal}) {
    const bool global = mode == cudaStreamCaptureModeGlobal;
    const cudaGraphExec_t graph = Capture(
        s.compute,
        [&] { std::thread([&] { cudaEventQuery(s.event); }).join(); }, mode);
    EXPECT_EQ(graph == nullptr, global);
    EXPECT_EQ(TakeReports().empty(), !global);
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
}

TEST(LazyGraphsTest, AGraphThatGoesBeforeItHasRunIsReported) {
  Reset({.policy = Policy::kLazyLast});
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    cudaMemcpyAsync(b, a, kBytes, cudaMemcpyDeviceToDevice, s.compute);
  });
  cudaGraphLaunch(graph, s.compute);
  cudaGraphExecDestroy(graph);
  cudaDeviceSynchronize();
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("has not run")));
}

// On `stream`.
void Copy(float* to, const float* from, cudaStream_t stream) {
  cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, stream);
}

float FirstOf(const float* data, cudaStream_t stream) {
  std::vector<float> host(kFloats);
  cudaMemcpyAsync(host.data(), data, kBytes, cudaMemcpyDeviceToHost, stream);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  return host[0];
}

TEST_P(GraphsTest, AStreamThatWaitsForACaptureIsPartOfIt) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  float* c = Allocate(s.compute);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    s.Order(s.compute, s.other);
    Copy(b, a, s.other);
    s.Order(s.other, s.compute);
    Copy(c, b, s.compute);
  });
  ASSERT_NE(graph, nullptr);
  for (const float value : {1.0f, 2.0f}) {
    Fill(a, value, s.compute);
    cudaGraphLaunch(graph, s.compute);
    EXPECT_EQ(FirstOf(c, s.compute), value);
  }
  // The streams are their owner's again.
  s.Order(s.compute, s.other);
  EXPECT_EQ(FirstOf(c, s.other), 2.0f);
  cudaGraphExecDestroy(graph);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST_P(GraphsTest, WorkOfAGraphThatNothingOrdersIsReported) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  Fill(a, 1.0f, s.compute);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    s.Order(s.compute, s.other);
    Copy(b, a, s.other);
    Copy(a, b, s.compute);  // Before it waits for the other.
    s.Order(s.other, s.compute);
  });
  ASSERT_NE(graph, nullptr);
  cudaGraphLaunch(graph, s.compute);
  cudaStreamSynchronize(s.compute);
  cudaGraphExecDestroy(graph);
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("nothing orders them")));
}

TEST_P(GraphsTest, AForkThatIsNotJoinedIsReported) {
  Streams s;
  float* a = Allocate(s.compute);
  float* b = Allocate(s.compute);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    s.Order(s.compute, s.other);
    Copy(b, a, s.other);
    s.Order(s.other, s.compute);
    Copy(a, b, s.other);  // After what is waited for.
  });
  EXPECT_EQ(graph, nullptr);
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("is not joined")));
}

TEST_P(GraphsTest, ACaptureThatWaitsForOtherWorkIsReported) {
  Streams s;
  cudaEventRecord(s.event, s.other);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    EXPECT_EQ(cudaStreamWaitEvent(s.compute, s.event, 0),
              cudaErrorStreamCaptureIsolation);
  });
  EXPECT_EQ(graph, nullptr);
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("not part of it")));
}

TEST_P(GraphsTest, CapturesThatWaitForEachOtherAreReported) {
  Streams s;
  cudaStreamBeginCapture(s.other, cudaStreamCaptureModeThreadLocal);
  cudaEventRecord(s.event, s.other);
  const cudaGraphExec_t graph = Capture(s.compute, [&] {
    EXPECT_EQ(cudaStreamWaitEvent(s.compute, s.event, 0),
              cudaErrorStreamCaptureMerge);
  });
  cudaGraph_t other = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(s.other, &other), cudaSuccess);
  cudaGraphDestroy(other);
  EXPECT_EQ(graph, nullptr);
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("of another capture")));
}

TEST_P(GraphsTest, ACaptureEndsInTheStreamWhereItBegan) {
  Streams s;
  cudaStreamBeginCapture(s.compute, cudaStreamCaptureModeThreadLocal);
  s.Order(s.compute, s.other);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(s.other, &graph),
            cudaErrorStreamCaptureUnmatched);
  s.Order(s.other, s.compute);
  EXPECT_EQ(cudaStreamEndCapture(s.compute, &graph), cudaSuccess);
  cudaGraphDestroy(graph);
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("that joined it")));
}

TEST_P(GraphsTest, EventsThatACaptureRecordedHaveNoAnswer) {
  Streams s;
  const cudaGraphExec_t graph =
      Capture(s.compute, [&] { cudaEventRecord(s.event, s.compute); });
  ASSERT_NE(graph, nullptr);
  EXPECT_EQ(cudaEventQuery(s.event), cudaErrorCapturedEvent);
  EXPECT_EQ(cudaEventSynchronize(s.event), cudaErrorCapturedEvent);
  EXPECT_EQ(cudaStreamWaitEvent(s.other, s.event, 0), cudaErrorCapturedEvent);
  EXPECT_EQ(TakeReports().size(), 3u);
  cudaEventRecord(s.event, s.compute);
  EXPECT_EQ(cudaEventSynchronize(s.event), cudaSuccess);
  cudaGraphExecDestroy(graph);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

// A rank's graph of `sums` of an array over the ranks, on a stream that is
// forked from the captured one.
struct SumGraph {
  SumGraph(ncclComm_t comm, int sums) : a(Allocate(s.compute)) {
    graph = Capture(s.compute, [&] {
      s.Order(s.compute, s.other);
      for (int sum = 0; sum < sums; ++sum) {
        ncclAllReduce(a, a, kFloats, ncclFloat32, ncclSum, comm, s.other);
        Await(comm);
      }
      s.Order(s.other, s.compute);
    });
    EXPECT_NE(graph, nullptr);
  }
  ~SumGraph() {
    cudaStreamSynchronize(s.compute);
    cudaGraphExecDestroy(graph);
  }

  Streams s;
  float* a;
  cudaGraphExec_t graph;
};

TEST_P(GraphsTest, CapturedCollectivesMeetAtEachLaunch) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    SumGraph sum(comm, 1);
    for (const float value : {1.0f, 2.0f}) {
      Fill(sum.a, value + static_cast<float>(rank), sum.s.compute);
      cudaGraphLaunch(sum.graph, sum.s.compute);
      EXPECT_EQ(FirstOf(sum.a, sum.s.compute), 2.0f * value + 1.0f);
    }
  });
  EXPECT_EQ(Collectives(), 2);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST_P(GraphsTest, ACollectiveThatOneGraphLacksIsADeadlockReport) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    SumGraph sum(comm, rank == 0 ? 2 : 1);
    Fill(sum.a, 1.0f, sum.s.compute);
    cudaGraphLaunch(sum.graph, sum.s.compute);
    EXPECT_EQ(cudaStreamSynchronize(sum.s.compute),
              rank == 0 ? cudaErrorUnknown : cudaSuccess);
  });
  EXPECT_THAT(TakeReports(),
              Contains(AllOf(HasSubstr("deadlock"), HasSubstr("for rank 1"))));
}

TEST_P(GraphsTest, ALaunchThatOneRankLacksIsADeadlockReport) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    SumGraph sum(comm, 1);
    for (int launch = 0; launch < 2 - rank; ++launch) {
      cudaGraphLaunch(sum.graph, sum.s.compute);
    }
    cudaStreamSynchronize(sum.s.compute);
  });
  EXPECT_THAT(TakeReports(),
              Contains(AllOf(HasSubstr("deadlock"), HasSubstr("for rank 1"))));
}

TEST_P(GraphsTest, OneRanksLaunchAndTheOthersCallAreReported) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    SumGraph sum(comm, 1);
    if (rank == 0) {
      cudaGraphLaunch(sum.graph, sum.s.compute);
    } else {
      ncclAllReduce(sum.a, sum.a, kFloats, ncclFloat32, ncclSum, comm,
                    sum.s.compute);
      Await(comm);
    }
    cudaStreamSynchronize(sum.s.compute);
  });
  EXPECT_THAT(TakeReports(), Contains(AllOf(HasSubstr("where rank"),
                                            HasSubstr("captured as 0"))));
}

TEST_P(GraphsTest, LaunchesInAnotherOrderThanThePeersAreReported) {
  OnTwoRanks([](int rank, ncclComm_t comm) {
    SumGraph first(comm, 1);
    SumGraph second(comm, 1);
    SumGraph& early = rank == 0 ? first : second;
    SumGraph& late = rank == 0 ? second : first;
    cudaGraphLaunch(early.graph, early.s.compute);
    cudaGraphLaunch(late.graph, late.s.compute);
    cudaStreamSynchronize(early.s.compute);
    cudaStreamSynchronize(late.s.compute);
  });
  EXPECT_THAT(TakeReports(), Contains(AllOf(HasSubstr("captured as 0"),
                                            HasSubstr("captured as 1"))));
}

TEST_P(GraphsTest, ACommunicatorThatGoesBeforeItsGraphIsReported) {
  std::vector<std::unique_ptr<SumGraph>> graphs(2);
  OnTwoRanks([&](int rank, ncclComm_t comm) {
    graphs[static_cast<size_t>(rank)] = std::make_unique<SumGraph>(comm, 1);
  });
  EXPECT_THAT(TakeReports(), Contains(HasSubstr("ncclCommDestroy before")));
}

}  // namespace
}  // namespace lorica::cuda_fakes
