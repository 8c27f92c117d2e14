// Signals that ask a run to save and end.
#ifndef LORICA_LAUNCH_TRAIN_STOP_SIGNALS_H_
#define LORICA_LAUNCH_TRAIN_STOP_SIGNALS_H_

#include <array>
#include <csignal>
#include <string>

namespace lorica {

// While one lives, SIGTERM, SIGINT and SIGUSR1 to this process are noted
// instead of ending it; a second SIGINT ends it at once with code 130. Signals
// belong to the process, so at most one lives at a time.
class StopSignals {
 public:
  StopSignals();
  // What the signals did before is restored.
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signal last noted, or 0.
  static int Received();

 private:
  static constexpr std::array<int, 3> kSignals = {SIGTERM, SIGINT, SIGUSR1};
  std::array<struct sigaction, 3> before_;
};

// "SIGTERM".
std::string SignalName(int number);

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_STOP_SIGNALS_H_
