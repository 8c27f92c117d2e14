#include "launch/report/progress.h"

#include <unistd.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lorica {
namespace {

// Back to the start of the line, and clear it.
constexpr char kRenew[] = "\r\x1b[K";

}  // namespace

Screen ScreenOf(std::FILE* out, std::FILE* err) {
  return isatty(fileno(out)) == 1 && isatty(fileno(err)) == 1
             ? Screen::kTerminal
             : Screen::kPlain;
}

std::string Duration(double seconds) {
  const int64_t whole = std::llround(std::fmax(seconds, 0));
  if (whole < 60) return absl::StrCat(whole, " s");
  if (whole < 3600) {
    return absl::StrCat(whole / 60, " min ", whole % 60, " s");
  }
  return absl::StrCat(whole / 3600, " h ", whole % 3600 / 60, " min");
}

Progress::Progress(std::FILE* out, Screen screen, int64_t steps,
                   int64_t every_steps)
    : out_(out), screen_(screen), steps_(steps), every_steps_(every_steps) {}

void Progress::Report(const StepMetrics& metrics) {
  ++steps_seen_;
  seconds_seen_ += metrics.step_seconds;
  const bool last = metrics.step == steps_;
  if (screen_ == Screen::kTerminal) {
    absl::FPrintF(out_, "%s%s%s", kRenew, StepLine(metrics), last ? "\n" : "");
  } else if (last || steps_seen_ == 1 || metrics.step % every_steps_ == 0) {
    absl::FPrintF(out_, "%s\n", StepLine(metrics));
  }
  std::fflush(out_);
}

void Progress::Report(const ValidMetrics& metrics) {
  Say(absl::StrFormat(
      "step %d/%d  validation loss %.4f  (%d tokens of %d records, %s)",
      metrics.step, steps_, metrics.valid_loss, metrics.valid_tokens,
      metrics.valid_records, Duration(metrics.valid_seconds)));
}

void Progress::Say(absl::string_view line) {
  absl::FPrintF(out_, "%s%s\n", screen_ == Screen::kTerminal ? kRenew : "",
                line);
  std::fflush(out_);
}

std::string Progress::StepLine(const StepMetrics& metrics) const {
  const double left = seconds_seen_ / static_cast<double>(steps_seen_) *
                      static_cast<double>(steps_ - metrics.step);
  return absl::StrFormat("step %d/%d  loss %.4f  %.0f tokens/s  %s left",
                         metrics.step, steps_, metrics.loss,
                         metrics.tokens_per_second, Duration(left));
}

}  // namespace lorica
