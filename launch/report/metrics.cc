#include "launch/report/metrics.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "runtime/check.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::Status WriteError(const std::string& path) {
  return absl::InternalError(
      absl::StrCat("cannot write ", path, ": ", strerror(errno)));
}

}  // namespace

absl::StatusOr<MetricsWriter> MetricsWriter::Create(const std::string& path) {
  return Open(path, "w");
}

absl::StatusOr<MetricsWriter> MetricsWriter::Continue(const std::string& path,
                                                      int64_t step) {
  std::ifstream file(path);
  std::string kept;
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.contains("step") &&
        json["step"].is_number_integer() &&
        json["step"].get<int64_t>() <= step) {
      kept += line + "\n";
    }
  }
  LORICA_RETURN_IF_ERROR(WriteFileAtomically(path, kept));
  return Open(path, "a");
}

absl::StatusOr<MetricsWriter> MetricsWriter::Open(const std::string& path,
                                                  const char* mode) {
  std::FILE* file = std::fopen(path.c_str(), mode);
  if (file == nullptr) return WriteError(path);
  return MetricsWriter(path, file);
}

absl::Status MetricsWriter::Write(const StepMetrics& metrics) {
  nlohmann::ordered_json line = {
      {"step", metrics.step},
      {"loss", metrics.loss},
      {"learning_rate", metrics.learning_rate},
      {"grad_norm", metrics.grad_norm},
      {"target_tokens", metrics.target_tokens},
      {"tokens", metrics.tokens},
      {"step_seconds", metrics.step_seconds},
      {"tokens_per_second", metrics.tokens_per_second},
      {"peak_rss_bytes", metrics.peak_rss_bytes},
      {"anomalies", metrics.anomalies}};
  if (metrics.peak_device_bytes > 0) {
    line["peak_device_bytes"] = metrics.peak_device_bytes;
  }
  if (metrics.unplanned_bytes > 0) {
    line["unplanned_bytes"] = metrics.unplanned_bytes;
  }
  return WriteLine(line.dump());
}

absl::Status MetricsWriter::Write(const SaveMetrics& metrics) {
  const nlohmann::ordered_json line = {
      {"step", metrics.step},
      {"saved", metrics.saved},
      {"save_seconds", metrics.save_seconds},
      {"save_blocked_seconds", metrics.save_blocked_seconds},
      {"save_bytes", metrics.save_bytes}};
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
