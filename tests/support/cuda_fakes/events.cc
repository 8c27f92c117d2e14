// The functions of the CUDA runtime that order streams by events, and what
// events do to a capture: a stream that waits for one that a capture recorded
// becomes part of that capture.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <string>

#include "tests/support/cuda_fakes/timeline.h"

namespace {

using lorica::cuda_fakes::Capture;
using lorica::cuda_fakes::Lock;
using lorica::cuda_fakes::Node;
using lorica::cuda_fakes::Op;
using lorica::cuda_fakes::Stream;
using lorica::cuda_fakes::Timeline;

Timeline& TheTimeline() { return Timeline::Get(); }

Stream* Of(cudaStream_t stream) { return reinterpret_cast<Stream*>(stream); }

cudaError_t Waited(bool done) { return done ? cudaSuccess : cudaErrorUnknown; }

}  // namespace

// The latest record: an operation, or a node of a capture.
struct CUevent_st {
  std::shared_ptr<Op> op;
  std::shared_ptr<double> microseconds =
      std::make_shared<double>();  // Its time.
  std::shared_ptr<Capture> capture;
  size_t node = 0;
};

namespace {

// Questions that have no answer of an event that was last recorded in a
// capture.
bool Captured(const CUevent_st* event, const char* call) {
  if (event->capture == nullptr) return false;
  TheTimeline().Report(std::string(call) + " of an event that is captured");
  return true;
}

cudaError_t WaitForCaptured(Stream* stream, const CUevent_st* event) {
  Capture* const capture = event->capture.get();
  const bool over = capture->streams[0]->capture.get() != capture;
  if (over) {
    TheTimeline().Report("a wait for an event of a capture that has ended");
    return cudaErrorCapturedEvent;
  }
  if (stream->capture == nullptr) {
    stream->capture = event->capture;
    const auto& streams = capture->streams;
    if (std::find(streams.begin(), streams.end(), stream) == streams.end()) {
      capture->streams.push_back(stream);
    }
  }
  if (stream->capture != event->capture) {
    TheTimeline().Spoil(stream->capture.get(),
                        "a wait for an event of another capture");
    return cudaErrorStreamCaptureMerge;
  }
  TheTimeline().Add(stream, {.name = "event wait"});
  capture->graph.back().after = event->node;
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const auto lock = Lock();
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto lock = Lock();
  event->microseconds = std::make_shared<double>();
  event->op = TheTimeline().Add(
      Of(stream),
      {.name = "event record", .run = [at = event->microseconds](const Op&) {
         *at = TheTimeline().microseconds();
       }});
  event->capture = Of(stream)->capture;
  if (event->capture == nullptr) return cudaSuccess;
  event->node = event->capture->graph.size() - 1;
  event->capture->graph.back().kind = Node::Kind::kRecord;
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned flags) {
  const auto lock = Lock();
  if (flags != 0) return cudaErrorInvalidValue;  // Not what lorica does.
  if (event->capture != nullptr) return WaitForCaptured(Of(stream), event);
  if (event->op == nullptr) {
    TheTimeline().Report("a wait for an event never recorded does nothing");
    return cudaSuccess;
  }
  if (Capture* const capture = Of(stream)->capture.get()) {
    TheTimeline().Spoil(capture,
                        "a wait in a capture for what is not part of it");
    return cudaErrorStreamCaptureIsolation;
  }
  TheTimeline().Add(Of(stream), {.name = "event wait", .after = event->op});
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (TheTimeline().Forbids("cudaEventSynchronize")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  if (Captured(event, "cudaEventSynchronize")) return cudaErrorCapturedEvent;
  return Waited(TheTimeline().RunUntil(event->op));
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin,
                                 cudaEvent_t end) {
  const auto lock = Lock();
  if (begin->op == nullptr || end->op == nullptr) {
    return cudaErrorInvalidResourceHandle;
  }
  if (!begin->op->done || !end->op->done) return cudaErrorNotReady;
  *milliseconds =
      static_cast<float>(1e-3 * (*end->microseconds - *begin->microseconds));
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const auto lock = Lock();
  if (TheTimeline().Forbids("cudaEventQuery")) {
    return cudaErrorStreamCaptureUnsupported;
  }
  if (Captured(event, "cudaEventQuery")) return cudaErrorCapturedEvent;
  return TheTimeline().Poke(event->op) ? cudaSuccess : cudaErrorNotReady;
}

}  // extern "C"
