// From a config file and the command line to a checked RunConfig.
#ifndef LORICA_LAUNCH_CONFIG_CONFIG_H_
#define LORICA_LAUNCH_CONFIG_CONFIG_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "launch/config/run_config.h"

namespace lorica {

struct LoadedConfig {
  RunConfig run;
  // The same as a textproto with every field written out, fit to be loaded
  // again.
  std::string text;
  // The same by path: "train.seed" -> "1". A list's values are joined by
  // spaces; what is not given and has no default is absent.
  std::map<std::string, std::string> fields;
};

// Reads the config file at `path` and applies `overrides`, each "path=value"
// as given to --set. The result needs no further validation except against
// the model, the data and the number of ranks. Errors name the file with line
// and column where the text is at fault, else the field and its value.
absl::StatusOr<LoadedConfig> LoadConfig(
    const std::string& path, const std::vector<std::string>& overrides);

// The same from text; `name` stands for the file in messages.
absl::StatusOr<LoadedConfig> ParseConfig(
    absl::string_view text, absl::string_view name,
    const std::vector<std::string>& overrides);

}  // namespace lorica

#endif  // LORICA_LAUNCH_CONFIG_CONFIG_H_
