// The program: finds the command, runs it on every rank, and lets rank 0 say
// what went wrong.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "launch/commands/commands.h"
#include "parallel/mpi_communicator.h"
#include "runtime/check.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr int kFailed = 2;

using Words = absl::Span<const char* const>;

// What is asked for, if it is information about the program itself.
absl::StatusOr<std::string> Information(Words words) {
  const absl::string_view first = words.empty() ? "" : words[0];
  if (first == "--version") return std::string("lorica " LORICA_VERSION "\n");
  if (first == "help" || first == "--help" || first == "-h") {
    return words.size() > 1 ? HelpPage(words[1]) : Overview();
  }
  if (words.size() == 2 && absl::string_view(words[1]) == "--help") {
    return HelpPage(first);
  }
  return std::string();
}

absl::Status Run(Words words, const MpiEnvironment& mpi, int rank) {
  LORICA_ASSIGN_OR_RETURN(const std::string information, Information(words));
  if (!information.empty()) {
    if (rank == 0) std::fputs(information.c_str(), stdout);
    return absl::OkStatus();
  }
  if (words.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a command is missing\n\n", Overview()));
  }
  LORICA_ASSIGN_OR_RETURN(const Command* command, FindCommand(words[0]));
  LORICA_ASSIGN_OR_RETURN(const Arguments arguments,
                          ParseArguments(*command, words.subspan(1)));
  return command->run(arguments, mpi);
}

int Main(Words words) {
  const auto mpi = MpiEnvironment::Start();
  if (!mpi.ok()) {
    absl::FPrintF(stderr, "lorica: %s\n", mpi.status().message());
    return kFailed;
  }
  const std::unique_ptr<Communicator> world = (*mpi)->World();
  const absl::Status status = Run(words, **mpi, world->rank());
  if (!status.ok() && world->rank() == 0) {
    absl::FPrintF(stderr, "lorica: %s\n", status.message());
  }
  // A launcher ends all ranks when one exits with a failure, so rank 0 speaks
  // first.
  world->Barrier();
  return status.ok() ? 0 : kFailed;
}

// Idle OpenMP threads spin by default, for so long that where another process
// wants a core they take the time that the last thread of a loop would need: on
// a busy machine a step takes a quarter of the time when they sleep. Where they
// sleep at once, waking them for the next loop costs a quiet machine 2 % of its
// step. So they spin for about as long as the gaps between loops last, tenths
// of a millisecond, and then sleep. The OpenMP library reads its policy as it
// is loaded, so the program starts over once with the policy set. Whoever has
// set one keeps it.
void LetIdleThreadsSleep(char** argv) {
  constexpr const char* kSpins = "GOMP_SPINCOUNT";
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (std::getenv(kSpins) != nullptr) return;
  if (setenv(kSpins, "20000", 1) != 0) return;
  // By its path, so that the process keeps its name. Returns only on failure.
  std::array<char, 4096> path{};
  if (readlink("/proc/self/exe", path.data(), path.size() - 1) > 0) {
    execv(path.data(), argv);
  }
}

}  // namespace
}  // namespace lorica

int main(int argc, char** argv) {
  lorica::LetIdleThreadsSleep(argv);
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv[0]);
  return lorica::Main(lorica::Words(argv + 1, argc < 1 ? 0 : argc - 1));
}
