#include "launch/commands/saved_adapter.h"

#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "launch/config.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

}  // namespace

bool IsRunDirectory(const std::string& path) {
  return Exists(fs::path(path) / "latest");
}

absl::StatusOr<std::string> FindAdapterDirectory(const std::string& path) {
  if (Exists(fs::path(path) / "adapter_config.json")) return path;
  if (!IsRunDirectory(path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, Exists(path) ? " holds neither adapter_config.json nor "
                             "latest; name a save such as "
                             "runs/demo/step_00000050, or a run"
                           : " does not exist"));
  }
  const std::string latest = (fs::path(path) / "latest").string();
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(latest));
  const std::string name(absl::StripAsciiWhitespace(file->bytes()));
  const std::string save = (fs::path(path) / name).string();
  if (name.empty() || fs::path(name).filename() != name ||
      !Exists(fs::path(save) / "adapter_config.json")) {
    return absl::InvalidArgumentError(
        absl::StrCat(latest, ": names \"", absl::CHexEscape(name),
                     "\", which is no save of this run"));
  }
  return save;
}

absl::StatusOr<std::string> FindBaseModel(const std::string& adapter_directory,
                                          const std::string& named) {
  if (!named.empty() && Exists(named)) return named;
  const fs::path config =
      fs::path(adapter_directory).lexically_normal().parent_path() /
      "run.textproto";
  if (Exists(config)) {
    LORICA_ASSIGN_OR_RETURN(const LoadedConfig run,
                            LoadConfig(config.string(), {}));
    if (Exists(run.run.model.path)) return run.run.model.path;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      adapter_directory, "/adapter_config.json: base_model_name_or_path is \"",
      named, "\", which does not exist here; give the model with --model"));
}

}  // namespace lorica
