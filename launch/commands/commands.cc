#include "launch/commands/commands.h"

#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/commands/inspect.h"
#include "parallel/agreement.h"
#include "parallel/mpi_communicator.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::Status InspectPaths(const std::vector<std::string>& paths,
                          Verification verification) {
  if (paths.size() == 1) return Inspect(paths[0], verification, std::cout);
  if (verification != Verification::kNone) {
    return absl::InvalidArgumentError(
        "--verify goes with one PATH; two are compared");
  }
  return InspectDifference(paths[0], paths[1], std::cout);
}

absl::Status RunInspect(const Arguments& arguments, const MpiEnvironment& mpi) {
  const std::unique_ptr<Communicator> world = mpi.World(HostPath::kMessages);
  absl::Status status;
  if (world->rank() == 0) {
    status = InspectPaths(arguments.operands(), arguments.Switch("verify")
                                                    ? Verification::kEveryByte
                                                    : Verification::kNone);
  }
  return Agree(status, *world);
}

}  // namespace

Command InspectCommand() {
  return {
      .name = "inspect",
      .summary = "lists what a model, an adapter or a checkpoint holds",
      .details =
          "Prints the configuration, a line a tensor, and totals of a Hugging\n"
          "Face directory, a GGUF file, a PEFT directory, a checkpoint, the\n"
          "newest save of a run, or a safetensors file. Two adapters are\n"
          "compared: norms of the changes they make to each weight, cosines\n"
          "between them.\n",
      .operand = {"PATH", Presence::kRequired, /*most=*/2},
      .flags = {{.name = "verify",
                 .kind = FlagKind::kSwitch,
                 .help = "reads all of it: checksums, numbers that are none"}},
      .run = RunInspect};
}

const std::vector<Command>& Commands() {
  static const std::vector<Command> commands = {
      TrainCommand(), EvalCommand(), GenerateCommand(), ExportCommand(),
      InspectCommand()};
  return commands;
}

absl::StatusOr<const Command*> FindCommand(absl::string_view name) {
  for (const Command& command : Commands()) {
    if (command.name == name) return &command;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no command \"", name, "\"; there are ",
                   absl::StrJoin(Commands(), ", ",
                                 [](std::string* out, const Command& command) {
                                   out->append(command.name);
                                 }),
                   " and help"));
}

std::string Overview() {
  std::string text =
      "lorica trains low-rank adapters (LoRA) for GPT-style language models.\n"
      "\n";
  for (const Command& command : Commands()) {
    absl::StrAppendFormat(&text, "  lorica %-16s %s\n", command.name,
                          command.summary);
  }
  absl::StrAppendFormat(&text, "  lorica %-16s %s\n", "help [COMMAND]",
                        "explains a command and its flags");
  absl::StrAppendFormat(&text, "  lorica %-16s %s\n", "--version",
                        "prints the version");
  absl::StrAppend(
      &text,
      "\n"
      "Several processes work as one: mpirun -n 2 lorica train ...\n"
      "A command that cannot do its work says why and exits with 2.\n");
  return text;
}

absl::StatusOr<std::string> HelpPage(absl::string_view name) {
  if (name == "help") return Overview();
  LORICA_ASSIGN_OR_RETURN(const Command* command, FindCommand(name));
  return HelpOf(*command);
}

}  // namespace lorica
