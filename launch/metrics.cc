#include "launch/metrics.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "runtime/check.h"

namespace lorica {
namespace {

absl::Status WriteError(const std::string& path) {
  return absl::InternalError(
      absl::StrCat("cannot write ", path, ": ", strerror(errno)));
}

}  // namespace

absl::StatusOr<MetricsWriter> MetricsWriter::Create(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return WriteError(path);
  return MetricsWriter(path, file);
}

absl::Status MetricsWriter::Write(const StepMetrics& metrics) {
  const nlohmann::ordered_json line = {
      {"step", metrics.step},
      {"loss", metrics.loss},
      {"learning_rate", metrics.learning_rate},
      {"grad_norm", metrics.grad_norm},
      {"target_tokens", metrics.target_tokens},
      {"tokens", metrics.tokens},
      {"step_seconds", metrics.step_seconds},
      {"tokens_per_second", metrics.tokens_per_second},
      {"peak_rss_bytes", metrics.peak_rss_bytes}};
  return WriteLine(line.dump());
}

absl::Status MetricsWriter::Write(const ValidMetrics& metrics) {
  const nlohmann::ordered_json line = {
      {"step", metrics.step},
      {"valid_loss", metrics.valid_loss},
      {"valid_tokens", metrics.valid_tokens},
      {"valid_records", metrics.valid_records},
      {"valid_seconds", metrics.valid_seconds}};
  return WriteLine(line.dump());
}

absl::Status MetricsWriter::WriteLine(const std::string& line) {
  if (std::fprintf(file_.get(), "%s\n", line.c_str()) < 0 ||
      std::fflush(file_.get()) != 0) {
    return WriteError(path_);
  }
  return absl::OkStatus();
}

int64_t PeakRssBytes() {
  rusage usage;
  CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0) << strerror(errno);
  return int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace lorica
