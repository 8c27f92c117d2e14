// What a run measures, and the JSONL file it goes to.
#ifndef LORICA_LAUNCH_REPORT_METRICS_H_
#define LORICA_LAUNCH_REPORT_METRICS_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorica {

// One optimizer step, over all ranks.
struct StepMetrics {
  int64_t step = 0;  // Counts from 1.
  double loss = 0;   // Mean over the step's target tokens, in nats.
  double learning_rate = 0;
  double grad_norm = 0;  // Before clipping.
  int64_t target_tokens = 0;
  int64_t tokens = 0;  // All that went through the model, without padding.
  double step_seconds = 0;
  double tokens_per_second = 0;
  // The largest of any rank so far: of the host's memory, and of the GPU's;
  // the latter 0, and not written, where CPUs compute.
  int64_t peak_rss_bytes = 0;
  int64_t peak_device_bytes = 0;
  // What a rank's activations took at most beyond the memory planned for them;
  // not written where that is 0, as it should be.
  int64_t unplanned_bytes = 0;
  int64_t anomalies = 0;  // So far: this step's included.
};

// A save that is in place, or was not possible.
struct SaveMetrics {
  int64_t step = 0;
  bool saved = true;
  double save_seconds = 0;          // Until it was in place.
  double save_blocked_seconds = 0;  // Of which training stood still.
  int64_t save_bytes = 0;           // Of all files of all ranks.
};

// The loss on the validation records after `step` steps.
struct ValidMetrics {
  int64_t step = 0;
  double valid_loss = 0;  // Mean over the target tokens, in nats.
  int64_t valid_tokens = 0;
  int64_t valid_records = 0;
  double valid_seconds = 0;
};

// A JSON object a line, each flushed, so that what a killed run measured is on
// file. Fields are named as in the structs.
class MetricsWriter {
 public:
  // Begins the file anew. Its folder must exist.
  static absl::StatusOr<MetricsWriter> Create(const std::string& path);
  // Goes on after the lines of steps up to `step`; what a run wrote beyond the
  // save it resumes, and a line cut short, are dropped.
  static absl::StatusOr<MetricsWriter> Continue(const std::string& path,
                                                int64_t step);

  absl::Status Write(const StepMetrics& metrics);
  absl::Status Write(const SaveMetrics& metrics);
  absl::Status Write(const ValidMetrics& metrics);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  static absl::StatusOr<MetricsWriter> Open(const std::string& path,
                                            const char* mode);
  MetricsWriter(std::string path, std::FILE* file)
      : path_(std::move(path)), file_(file) {}
  absl::Status WriteLine(const std::string& line);

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

// The most memory this process had resident so far.
int64_t PeakRssBytes();

}  // namespace lorica

#endif  // LORICA_LAUNCH_REPORT_METRICS_H_
