#include "launch/commands/saved_adapter.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "launch/config/config.h"
#include "launch/state/checkpoint.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

}  // namespace

absl::StatusOr<std::string> FindAdapterDirectory(const std::string& path) {
  const std::string save = ResolveSave(path);
  if (Exists(fs::path(save) / "adapter_config.json")) return save;
  return absl::InvalidArgumentError(absl::StrCat(
      save, Exists(save) ? " holds no adapter_config.json; name a save such as "
                           "runs/demo/step_00000050, or a run whose latest "
                           "names one"
                         : " does not exist"));
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
