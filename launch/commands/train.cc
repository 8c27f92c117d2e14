#include <memory>
#include <string>

#include "launch/commands/commands.h"
#include "launch/config/config.h"
#include "launch/session.h"
#include "launch/train/train_run.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kDetails[] =
    "Trains an adapter as a config file says. configs/lorica.proto explains\n"
    "every field, configs/quickstart.textproto is an example. Start as many\n"
    "ranks as mesh.data * mesh.tensor:\n"
    "\n"
    "  mpirun -n 2 lorica train --config run.textproto --set mesh.tensor=2\n"
    "\n"
    "The directory checkpoint.directory then holds metrics.jsonl, event files\n"
    "of TensorBoard, run.textproto (the config with every default written\n"
    "out), and the saves: step_00000050 and so on, PEFT directories all;\n"
    "'latest' names the newest. Given again, the command goes on from it.\n"
    "SIGTERM, SIGINT and SIGUSR1 to any rank save after the present step and\n"
    "end the run with success; docs/checkpoints.md has the rest.\n";

absl::Status RunTrain(const Arguments& arguments, const MpiEnvironment& mpi) {
  LORICA_ASSIGN_OR_RETURN(
      const LoadedConfig config,
      AgreeOn(LoadConfig(arguments.Text("config"), arguments.Texts("set")),
              *mpi.World(HostPath::kMessages)));
  LORICA_ASSIGN_OR_RETURN(
      const std::unique_ptr<Session> session,
      Session::Open(mpi, config.run.mesh,
                    {config.run.device, config.run.product_choices,
                     config.run.cuda_attention},
                    config.run.threads));
  return RunTraining(config, *session);
}

}  // namespace

Command TrainCommand() {
  return {.name = "train",
          .summary = "trains an adapter as a config file says",
          .details = kDetails,
          .operand = {},
          .flags = {{.name = "config",
                     .value_name = "FILE",
                     .presence = Presence::kRequired,
                     .help = "the run's config, a textproto"},
                    {.name = "set",
                     .value_name = "PATH=VALUE",
                     .presence = Presence::kRepeated,
                     .help = "one field instead, such as train.steps=10"}},
          .run = RunTrain};
}

}  // namespace lorica
