#include "tests/launch/program.h"

#include <sys/wait.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

std::string Quoted(const std::string& word) {
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

// The program with its arguments, as the shell takes it.
std::string CommandLine(const std::vector<std::string>& arguments, int ranks) {
  std::string command = "timeout --kill-after=5 120 env OMP_NUM_THREADS=1 ";
  if (ranks > 1) {
    // Open MPI keeps memory to its end, which the leak checker would report.
    command +=
        "ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 "
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " MPIEXEC
        " --oversubscribe --bind-to none -n " +
        std::to_string(ranks) + " ";
  }
  command += Quoted(LORICA_PROGRAM);
  for (const std::string& argument : arguments) {
    command += " " + Quoted(argument);
  }
  return command;
}

// Runs a command to its end; `rest` follows its redirections.
Outcome Run(const std::string& command, const std::string& rest) {
  const TempDirectory directory;
  const std::string out = directory / "out";
  const std::string err = directory / "err";
  const int status = std::system((command + " >" + Quoted(out) + " 2>" +
                                  Quoted(err) + " </dev/null" + rest)
                                     .c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadBytes(out),
          ReadBytes(err)};
}

}  // namespace

Outcome RunLorica(const std::vector<std::string>& arguments, int ranks) {
  return Run(CommandLine(arguments, ranks), "");
}

Outcome InterruptLorica(const std::vector<std::string>& arguments, int ranks,
                        const std::string& file, const std::string& text,
                        const std::vector<std::string>& signals) {
  // timeout starts the program or mpirun, which starts the ranks.
  std::string rest = " & job=$!; until grep -q -e " + Quoted(text) + " " +
                     Quoted(file) +
                     " 2>/dev/null; do sleep 0.02; "
                     "kill -0 $job || break; done; "
                     "child() { cat /proc/$1/task/*/children | cut -d ' ' -f 1 "
                     "| head -n 1; }; rank=$(child $job); ";
  if (ranks > 1) rest += "rank=$(child $rank); ";
  for (const std::string& signal : signals) {
    rest += "kill -" + signal + " $rank; sleep 0.2; ";
  }
  return Run(CommandLine(arguments, ranks), rest + "wait $job");
}

std::string FirstLines(const std::string& path, int count) {
  std::istringstream text(ReadBytes(path));
  std::string lines;
  std::string line;
  while (count-- > 0 && std::getline(text, line)) lines += line + "\n";
  return lines;
}

std::vector<double> LossesIn(const std::string& metrics_path,
                             const std::string& key) {
  std::vector<double> losses;
  std::istringstream text(ReadBytes(metrics_path));
  for (std::string line; std::getline(text, line);) {
    const auto values = nlohmann::json::parse(line);
    if (values.contains(key)) losses.push_back(values[key].get<double>());
  }
  return losses;
}

}  // namespace lorica
