// What a run tells the person who waits for it.
#ifndef LORICA_LAUNCH_REPORT_PROGRESS_H_
#define LORICA_LAUNCH_REPORT_PROGRESS_H_

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"
#include "launch/report/metrics.h"

namespace lorica {

enum class Screen : uint8_t { kTerminal, kPlain };

// A terminal if both streams are. mpirun gives its ranks a pseudo-terminal as
// standard output, whatever its own is, but a pipe as standard error.
Screen ScreenOf(std::FILE* out, std::FILE* err);

// On a terminal one line renews itself every step; anywhere else a line is
// added after the first and the last step and every `every_steps` between.
// Held by rank 0 alone.
class Progress {
 public:
  // `out` must outlive this.
  Progress(std::FILE* out, Screen screen, int64_t steps, int64_t every_steps);

  void Report(const StepMetrics& metrics);
  void Report(const ValidMetrics& metrics);
  // A line of its own, above the one that renews itself.
  void Say(absl::string_view line);

 private:
  std::string StepLine(const StepMetrics& metrics) const;

  std::FILE* out_;
  Screen screen_;
  int64_t steps_;
  int64_t every_steps_;
  int64_t steps_seen_ = 0;
  double seconds_seen_ = 0;
};

// "48 s", "4 min 10 s" or "3 h 20 min".
std::string Duration(double seconds);

}  // namespace lorica

#endif  // LORICA_LAUNCH_REPORT_PROGRESS_H_
