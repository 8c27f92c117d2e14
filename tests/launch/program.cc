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

}  // namespace

Outcome RunLorica(const std::vector<std::string>& arguments, int ranks) {
  const TempDirectory directory;
  const std::string out = directory / "out";
  const std::string err = directory / "err";
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
  command += " >" + Quoted(out) + " 2>" + Quoted(err) + " </dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadBytes(out),
          ReadBytes(err)};
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
