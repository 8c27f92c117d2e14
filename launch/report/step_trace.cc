#include "launch/report/step_trace.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/config/field_error.h"
#include "parallel/agreement.h"
#include "runtime/files/atomic_file.h"
#include "runtime/traced_backend.h"

namespace lorica {
namespace {

std::string TraceEvent(const SpanRecord& span, int rank) {
  const double nanoseconds =
      static_cast<double>(std::max<int64_t>(1, span.end_ns - span.begin_ns));
  const char* space = *span.about == '\0' ? "" : " ";
  std::string event = absl::StrFormat(
      R"({"name":"%s%s%s","cat":"%s","ph":"X","ts":%.3f,"dur":%.3f,)"
      R"("pid":%d,"tid":%d,"args":{)",
      span.name, space, span.about, NameOf(span.kind),
      static_cast<double>(span.begin_ns) * 1e-3, nanoseconds * 1e-3, rank,
      span.thread);
  std::vector<std::string> arguments;
  if (span.work.flops > 0) {
    arguments.push_back(
        absl::StrFormat(R"("GFLOP/s":%.1f)", span.work.flops / nanoseconds));
  }
  if (span.work.bytes > 0) {
    arguments.push_back(absl::StrFormat(R"("bytes":%.0f,"GB/s":%.2f)",
                                        span.work.bytes,
                                        span.work.bytes / nanoseconds));
  }
  absl::StrAppend(&event, absl::StrJoin(arguments, ","), "}}");
  return event;
}

}  // namespace

std::string TraceEvents(absl::Span<const SpanRecord> spans, int rank) {
  std::string events = absl::StrFormat(
      R"({"name":"process_name","ph":"M","pid":%d,"args":{"name":"rank %d"}})",
      rank, rank);
  for (const SpanRecord& span : spans) {
    absl::StrAppend(&events, ",\n", TraceEvent(span, rank));
  }
  return events;
}

StepTrace::StepTrace(const ReportOptions& report, int64_t steps,
                     const Session& session)
    : path_(report.trace),
      first_(report.trace_first_step),
      last_(std::min(steps, first_ + report.trace_steps - 1)),
      session_(session) {
  if (path_.empty()) return;
  Device* device = session_.device();
  device->Interpose(TracedBackend(&device->backend()));
}

absl::Status StepTrace::OpenFile() const {
  if (path_.empty()) return absl::OkStatus();
  return WriteEvents({});
}

absl::Status StepTrace::WriteEvents(
    const std::vector<std::string>& ranks) const {
  return Of("report.trace",
            WriteFileAtomically(
                path_, absl::StrCat("{\"traceEvents\":[\n",
                                    absl::StrJoin(ranks, ",\n"), "\n]}\n")));
}

void StepTrace::Before(int64_t step) {
  if (path_.empty() || step != first_) return;
  session_.mesh().world().Barrier();
  StartTrace();
}

absl::Status StepTrace::After(int64_t step) {
  if (path_.empty() || step != last_) return absl::OkStatus();
  Communicator& world = session_.mesh().world();
  const std::vector<SpanRecord> spans = StopTrace();
  const std::vector<std::string> ranks =
      world.AllGatherBytes(TraceEvents(spans, world.rank()), Purpose::kControl);
  absl::Status status;
  if (session_.leads()) status = WriteEvents(ranks);
  return Agree(status, world);
}

}  // namespace lorica
