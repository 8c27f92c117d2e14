#include "launch/state/checkpoint.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

constexpr char kStepPrefix[] = "step_";
constexpr char kPartialSuffix[] = ".partial";

absl::Status CheckRoom(const std::string& directory, int64_t bytes) {
  struct statvfs volume;
  if (statvfs(directory.c_str(), &volume) != 0) return absl::OkStatus();
  const auto free = static_cast<int64_t>(volume.f_bavail * volume.f_frsize);
  if (free >= bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("checkpoint.directory ", directory, " has ", free,
                   " bytes free and two saves take ", bytes,
                   "; make room or choose another directory"));
}

// The step of a save's name, or -1.
int64_t StepOf(absl::string_view name) {
  int64_t step = -1;
  const bool is_save = absl::ConsumePrefix(&name, kStepPrefix) &&
                       absl::SimpleAtoi(name, &step) && step >= 0;
  return is_save ? step : -1;
}

// Steps of the saves, rising.
std::vector<int64_t> StepsIn(const std::string& directory) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const int64_t step = StepOf(entry.path().filename().string());
    if (step >= 0 && entry.is_directory(error)) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string LatestIn(const std::string& directory) {
  std::ifstream file(directory + "/latest");
  std::string name;
  std::getline(file, name);
  return StepOf(name) >= 0 ? name : "";
}

// What a killed process was writing or removing.
absl::Status ClearAway(const std::string& directory) {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    if ((absl::StartsWith(name, kStepPrefix) &&
         absl::EndsWith(name, kPartialSuffix)) ||
        absl::StartsWith(name, "latest.tmp-")) {
      leftovers.push_back(entry.path());
    }
  }
  for (const fs::path& path : leftovers) fs::remove_all(path, error);
  if (!error) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "checkpoint.directory ", directory,
      " holds parts of a save that cannot be removed: ", error.message()));
}

}  // namespace

std::string StepName(int64_t step) {
  return absl::StrFormat("%s%08d", kStepPrefix, step);
}

std::vector<std::string> SavesIn(const std::string& directory) {
  std::vector<std::string> names;
  const std::string latest = LatestIn(directory);
  if (!latest.empty()) names.push_back(latest);
  const std::vector<int64_t> steps = StepsIn(directory);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (StepName(*step) != latest) names.push_back(StepName(*step));
  }
  return names;
}

std::string ResolveSave(const std::string& path) {
  const std::string latest = LatestIn(path);
  return latest.empty() ? path : absl::StrCat(path, "/", latest);
}

absl::StatusOr<CheckpointStore> CheckpointStore::Open(
    const CheckpointOptions& options, int64_t save_bytes) {
  const std::string& directory = options.directory;
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint.directory ", directory,
                     " cannot be made: ", error.message()));
  }
  LORICA_RETURN_IF_ERROR(ClearAway(directory));
  LORICA_RETURN_IF_ERROR(CheckRoom(directory, 2 * save_bytes));
  // Proves that files can be made here before hours are spent.
  LORICA_RETURN_IF_ERROR(AtomicFile::Create(directory + "/latest").status());
  return CheckpointStore(options);
}

absl::Status CheckpointStore::Publish(int64_t step) const {
  LORICA_RETURN_IF_ERROR(
      WriteFileAtomically(PathOf("latest"), StepName(step) + "\n"));
  return RemoveOld(step);
}

std::string CheckpointStore::PathOf(const std::string& name) const {
  return options_.directory + "/" + name;
}

absl::Status CheckpointStore::RemoveOld(int64_t newest) const {
  if (options_.keep == 0) return absl::OkStatus();
  std::vector<int64_t> steps = StepsIn(options_.directory);
  std::sort(steps.begin(), steps.end(), [&](int64_t a, int64_t b) {
    return std::tuple(a <= newest, a) < std::tuple(b <= newest, b);
  });
  const int64_t each = options_.keep_every_steps;
  for (int64_t i = 0; i + options_.keep < std::ssize(steps); ++i) {
    const int64_t step = steps[static_cast<size_t>(i)];
    if (each > 0 && step % each == 0) continue;
    // Renamed first: what goes is gone whole.
    const std::string path = PathOf(StepName(step));
    std::error_code error;
    fs::rename(path, path + kPartialSuffix, error);
    if (!error) fs::remove_all(path + kPartialSuffix, error);
    if (error) {
      return absl::InternalError(absl::StrCat(
          "the old save ", path, " cannot be removed: ", error.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace lorica
