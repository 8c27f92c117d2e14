// The values of a run as TensorBoard reads them.
#ifndef LORICA_LAUNCH_REPORT_TENSORBOARD_H_
#define LORICA_LAUNCH_REPORT_TENSORBOARD_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "launch/report/metrics.h"

namespace lorica {

// Writes an event file: TFRecords of Event messages, each flushed.
class EventWriter {
 public:
  // Makes the directory where there is none, and in it a new file
  // "events.out.tfevents.TIME.HOST.PROCESS" in `directory`.
  static absl::StatusOr<EventWriter> Create(const std::string& directory);

  absl::Status Write(const StepMetrics& metrics);
  absl::Status Write(const ValidMetrics& metrics);
  absl::Status Write(const SaveMetrics& metrics);

  const std::string& path() const { return path_; }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using Scalar = std::pair<absl::string_view, double>;

  EventWriter(std::string path, std::FILE* file)
      : path_(std::move(path)), file_(file) {}
  absl::Status WriteScalars(int64_t step, const std::vector<Scalar>& scalars);
  absl::Status WriteRecord(const std::string& event);

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

// CRC-32C (Castagnoli), and the disguise TFRecords wear it in, so that a CRC of
// data that holds CRCs stays sound.
uint32_t Crc32c(absl::string_view bytes);
uint32_t MaskedCrc32c(absl::string_view bytes);

}  // namespace lorica

#endif  // LORICA_LAUNCH_REPORT_TENSORBOARD_H_
