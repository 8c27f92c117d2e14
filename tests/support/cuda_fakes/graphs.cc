// The functions of the CUDA runtime that make graphs of streams' work.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/cuda_fakes/timeline.h"

namespace {

using lorica::cuda_fakes::Capture;
using lorica::cuda_fakes::Forbidden;
using lorica::cuda_fakes::Graph;
using lorica::cuda_fakes::Lock;
using lorica::cuda_fakes::Node;
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

// The nodes that come before the last of lane 0, and that one.
std::vector<bool> BeforeTheEnd(const Graph& graph) {
  std::vector<bool> before(graph.size(), false);
  std::set<size_t> lanes = {0};  // Of which all that is left comes before.
  for (size_t i = graph.size(); i-- > 0;) {
    if (before[i]) lanes.insert(graph[i].lane);
    before[i] = lanes.contains(graph[i].lane);
    if (before[i] && graph[i].after.has_value()) {
      before[*graph[i].after] = true;
    }
  }
  return before;
}

// Whether the last of lane 0 waits, be it by way of others, for all work.
bool Joined(const Graph& graph) {
  const std::vector<bool> before = BeforeTheEnd(graph);
  for (size_t i = 0; i < graph.size(); ++i) {
    if (before[i] || graph[i].kind == Node::Kind::kRecord) continue;
    Timeline::Get().Report("'" + graph[i].op.name +
                           "' is not joined to the stream of its capture");
    return false;
  }
  return true;
}

}  // namespace

struct CUgraph_st {
  std::shared_ptr<const Graph> graph;
};

struct CUgraphExec_st {
  std::shared_ptr<const Graph> graph;
  std::vector<Stream*> lanes;  // But the first, which is a launch's stream.
  std::shared_ptr<Op> last;    // Of the latest launch.
};

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream,
                                   cudaStreamCaptureMode mode) {
  const auto lock = Lock();
  if (Timeline::Get().ForbidsInStream(Of(stream), "cudaStreamBeginCapture")) {
    return cudaErrorIllegalState;
  }
  Of(stream)->capture =
      std::make_shared<Capture>(Capture{.streams = {Of(stream)},
                                        .forbidden = ForbiddenBy(mode),
                                        .thread = std::this_thread::get_id()});
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const auto lock = Lock();
  *graph = nullptr;
  const std::shared_ptr<Capture> capture = Of(stream)->capture;
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->streams[0] != Of(stream)) {
    Timeline::Get().Report("a capture ended in a stream that joined it");
    return cudaErrorStreamCaptureUnmatched;
  }
  if (capture->forbidden != Forbidden::kToNone &&
      capture->thread != std::this_thread::get_id()) {
    Timeline::Get().Report("a capture ended by another thread");
    return cudaErrorStreamCaptureWrongThread;
  }
  for (Stream* const member : capture->streams) member->capture = nullptr;
  if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
  if (!Joined(capture->graph)) return cudaErrorStreamCaptureUnjoined;
  *graph =
      new CUgraph_st{std::make_shared<const Graph>(std::move(capture->graph))};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long) {
  const auto lock = Lock();
  size_t lanes = 1;
  for (const Node& node : *graph->graph) lanes = std::max(lanes, node.lane + 1);
  *exec = new CUgraphExec_st{.graph = graph->graph};
  while ((*exec)->lanes.size() + 1 < lanes) {
    (*exec)->lanes.push_back(Timeline::Get().NewStream());
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const auto lock = Lock();
  delete graph;
  return cudaSuccess;
}

// Behind what the stream was given and behind the launch before.
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const auto lock = Lock();
  Timeline& timeline = Timeline::Get();
  if (timeline.ForbidsInStream(Of(stream), "cudaGraphLaunch")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  timeline.CountGraphLaunch();
  const std::shared_ptr<Op> begin =
      timeline.Add(Of(stream), {.name = "graph launch", .after = exec->last});
  for (Stream* const lane : exec->lanes) {
    timeline.Add(lane, {.name = "graph launch", .after = begin});
  }
  std::vector<std::shared_ptr<Op>> ops;
  for (const Node& node : *exec->graph) {
    Op op = node.op;
    if (op.arrive) std::exchange(op.arrive, nullptr)(&op);
    if (node.after.has_value()) op.after = ops[*node.after];
    ops.push_back(
        timeline.Add(node.lane == 0 ? Of(stream) : exec->lanes[node.lane - 1],
                     std::move(op)));
  }
  exec->last = timeline.Add(Of(stream), {.name = "graph end"});
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
