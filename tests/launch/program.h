// The program as its users run it.
#ifndef LORICA_TESTS_LAUNCH_PROGRAM_H_
#define LORICA_TESTS_LAUNCH_PROGRAM_H_

#include <string>
#include <vector>

namespace lorica {

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string err;
};

// Runs lorica to its end, under mpirun where there are several ranks. What runs
// for longer than two minutes is ended with exit code 124.
Outcome RunLorica(const std::vector<std::string>& arguments, int ranks = 1);

// The same, and once `file` has a line with `text`, sends the signals, such as
// "INT", to the first rank alone (0.2 s apart).
Outcome InterruptLorica(const std::vector<std::string>& arguments, int ranks,
                        const std::string& file, const std::string& text,
                        const std::vector<std::string>& signals);

// The first `count` lines of a file.
std::string FirstLines(const std::string& path, int count);

// The values of `key` in a metrics file, from the lines that have it.
std::vector<double> LossesIn(const std::string& metrics_path,
                             const std::string& key);

}  // namespace lorica

#endif  // LORICA_TESTS_LAUNCH_PROGRAM_H_
