// The trace of some steps of a run, and the file it goes to.
#ifndef LORICA_LAUNCH_REPORT_STEP_TRACE_H_
#define LORICA_LAUNCH_REPORT_STEP_TRACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "launch/config/run_config.h"
#include "launch/session.h"
#include "runtime/trace.h"

namespace lorica {

// Traces steps report.trace_first_step and on, report.trace_steps of them or
// those there are, and writes what all ranks did to report.trace. Called on
// every rank around every step; does nothing where no trace is wanted. The
// ranks begin together, so their spans share one clock to within a barrier.
class StepTrace {
 public:
  // `session` must outlive this. Its device marks spans from now on.
  StepTrace(const ReportOptions& report, int64_t steps, const Session& session);

  // By the rank that writes, before the first step. Error: the file cannot be
  // written.
  absl::Status OpenFile() const;

  void Before(int64_t step);
  // Error: the file cannot be written; the same on every rank.
  absl::Status After(int64_t step);

 private:
  absl::Status WriteEvents(const std::vector<std::string>& ranks) const;

  std::string path_;  // Empty: no trace.
  int64_t first_ = 0;
  int64_t last_ = 0;
  const Session& session_;
};

// The spans of one rank as events of the Trace Event Format, with commas
// between: times in microseconds, the rank as process, rates in GFLOP/s and
// GB/s among the arguments.
std::string TraceEvents(absl::Span<const SpanRecord> spans, int rank);

}  // namespace lorica

#endif  // LORICA_LAUNCH_REPORT_STEP_TRACE_H_
