#include "launch/checkpoint.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kStepPrefix[] = "step_";

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

}  // namespace

std::string StepName(int64_t step) {
  return absl::StrFormat("%s%08d", kStepPrefix, step);
}

absl::StatusOr<CheckpointStore> CheckpointStore::Open(
    const std::string& directory, int64_t keep, int64_t save_bytes) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint.directory ", directory,
                     " cannot be made: ", error.message()));
  }
  LORICA_RETURN_IF_ERROR(CheckRoom(directory, 2 * save_bytes));
  // Proves that files can be made here before hours are spent.
  LORICA_RETURN_IF_ERROR(AtomicFile::Create(directory + "/latest").status());
  return CheckpointStore(directory, keep);
}

absl::Status CheckpointStore::Save(int64_t step, const PeftAdapter& adapter) {
  LORICA_RETURN_IF_ERROR(WritePeftAdapter(PathOf(StepName(step)), adapter));
  LORICA_RETURN_IF_ERROR(
      WriteFileAtomically(PathOf("latest"), StepName(step) + "\n"));
  return RemoveOld();
}

std::string CheckpointStore::PathOf(const std::string& name) const {
  return directory_ + "/" + name;
}

absl::Status CheckpointStore::RemoveOld() const {
  if (keep_ == 0) return absl::OkStatus();
  std::error_code error;
  std::vector<std::filesystem::path> saves;
  for (const auto& entry :
       std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = entry.path().filename();
    if (absl::StartsWith(name, kStepPrefix) && entry.is_directory() &&
        name.size() == StepName(0).size()) {
      saves.push_back(entry.path());
    }
  }
  std::sort(saves.begin(), saves.end());
  while (!error && std::ssize(saves) > keep_) {
    std::filesystem::remove_all(saves.front(), error);
    saves.erase(saves.begin());
  }
  if (error) {
    return absl::InternalError(absl::StrCat(
        "old saves in ", directory_, " cannot be removed: ", error.message()));
  }
  return absl::OkStatus();
}

}  // namespace lorica
