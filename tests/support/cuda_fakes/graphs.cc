// The functions of the CUDA runtime that make graphs of streams' work.
#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <thread>

#include "tests/support/cuda_fakes/timeline.h"

namespace {

using lorica::cuda_fakes::Capture;
using lorica::cuda_fakes::Forbidden;
using lorica::cuda_fakes::Graph;
using lorica::cuda_fakes::Lock;
using lorica::cuda_fakes::Op;
using lorica::cuda_fakes::Stream;
using lorica::cuda_fakes::Timeline;

Stream* Of(cudaStream_t stream) { return reinterpret_cast<Stream*>(stream); }

Forbidden ForbiddenBy(cudaStreamCaptureMode mode) {
  switch (mode) {
    case cudaStreamCaptureModeGlobal:
      return Forbidden::kToAll;
    case cudaStreamCaptureModeThreadLocal:
      return Forbidden::kToThread;
    default:
      return Forbidden::kToNone;
  }
}

}  // namespace

struct CUgraph_st {
  std::shared_ptr<const Graph> graph;
};

struct CUgraphExec_st {
  std::shared_ptr<const Graph> graph;
  std::shared_ptr<Op> last;  // Of the latest launch.
};

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream,
                                   cudaStreamCaptureMode mode) {
  const auto lock = Lock();
  if (Timeline::Get().ForbidsInStream(Of(stream), "cudaStreamBeginCapture")) {
    return cudaErrorIllegalState;
  }
  Of(stream)->capture = Capture{.graph = std::make_shared<Graph>(),
                                .forbidden = ForbiddenBy(mode),
                                .thread = std::this_thread::get_id()};
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const auto lock = Lock();
  *graph = nullptr;
  if (!Of(stream)->capture.has_value()) return cudaErrorIllegalState;
  const Capture capture = *Of(stream)->capture;
  if (capture.forbidden != Forbidden::kToNone &&
      capture.thread != std::this_thread::get_id()) {
    Timeline::Get().Report("a capture ended by another thread");
    return cudaErrorStreamCaptureWrongThread;
  }
  Of(stream)->capture.reset();
  if (!capture.valid) return cudaErrorStreamCaptureInvalidated;
  *graph = new CUgraph_st{capture.graph};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long) {
  const auto lock = Lock();
  *exec = new CUgraphExec_st{graph->graph, nullptr};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const auto lock = Lock();
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const auto lock = Lock();
  if (Timeline::Get().ForbidsInStream(Of(stream), "cudaGraphLaunch")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  exec->last = Timeline::Get().Launch(*exec->graph, Of(stream));
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const auto lock = Lock();
  if (exec->last != nullptr && !exec->last->done) {
    Timeline::Get().Report("cudaGraphExecDestroy of a graph that has not run");
  }
  delete exec;
  return cudaSuccess;
}

}  // extern "C"
