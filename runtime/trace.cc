#include "runtime/trace.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>

namespace lorica {
namespace {

using Clock = std::chrono::steady_clock;

struct Recorder {
  std::mutex mutex;
  std::vector<SpanRecord> spans;  // Guarded by mutex.
  // Changes with every start and stop; odd while a trace is taken, so that a
  // span that outlives its trace is told from one of the next.
  std::atomic<int64_t> epoch = 0;
  std::atomic<int64_t> origin_ns = 0;
};

Recorder& TheRecorder() {
  static Recorder* recorder = new Recorder();  // Outlives every thread.
  return *recorder;
}

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             Clock::now().time_since_epoch())
      .count();
}

int ThisThread() {
  static std::atomic<int> threads = 0;
  thread_local const int number = threads++;
  return number;
}

}  // namespace

const char* NameOf(SpanKind kind) {
  switch (kind) {
    case SpanKind::kPhase:
      return "phase";
    case SpanKind::kLayer:
      return "layer";
    case SpanKind::kOp:
      return "op";
    case SpanKind::kCollective:
      return "collective";
  }
  return "?";
}

void StartTrace() {
  Recorder& recorder = TheRecorder();
  const std::lock_guard lock(recorder.mutex);
  recorder.spans.clear();
  recorder.origin_ns = NowNs();
  recorder.epoch = (recorder.epoch | 1) + 2;
}

std::vector<SpanRecord> StopTrace() {
  Recorder& recorder = TheRecorder();
  const std::lock_guard lock(recorder.mutex);
  recorder.epoch = (recorder.epoch | 1) + 1;
  return std::exchange(recorder.spans, {});
}

bool Tracing() { return (TheRecorder().epoch & 1) != 0; }

Span::Span(SpanKind kind, const char* name, const char* about, const Work& work)
    : epoch_(TheRecorder().epoch) {
  if ((epoch_ & 1) == 0) return;
  record_ = {.name = name,
             .about = about,
             .kind = kind,
             .thread = ThisThread(),
             .begin_ns = NowNs(),
             .end_ns = 0,
             .work = work};
}

Span::~Span() {
  if ((epoch_ & 1) == 0) return;
  record_.end_ns = NowNs();
  Recorder& recorder = TheRecorder();
  const std::lock_guard lock(recorder.mutex);
  if (recorder.epoch != epoch_) return;
  record_.begin_ns -= recorder.origin_ns;
  record_.end_ns -= recorder.origin_ns;
  recorder.spans.push_back(record_);
}

}  // namespace lorica
