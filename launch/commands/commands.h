// The commands of the program, a file each.
#ifndef LORICA_LAUNCH_COMMANDS_COMMANDS_H_
#define LORICA_LAUNCH_COMMANDS_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "launch/commands/command_line.h"

namespace lorica {

Command TrainCommand();
Command EvalCommand();
Command ExportCommand();
Command GenerateCommand();
Command InspectCommand();

// In the order help lists them.
const std::vector<Command>& Commands();

// Error: there is none of that name; lists those there are.
absl::StatusOr<const Command*> FindCommand(absl::string_view name);

// What `lorica help` prints, and `lorica help NAME`.
std::string Overview();
absl::StatusOr<std::string> HelpPage(absl::string_view name);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_COMMANDS_H_
