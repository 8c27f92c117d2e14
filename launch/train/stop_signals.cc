#include "launch/train/stop_signals.h"

#include <string.h>
#include <unistd.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "runtime/check.h"

namespace lorica {
namespace {

constexpr int kInterrupted = 130;  // 128 + SIGINT, as shells report it.

// A handler is given nothing but the signal's number.
std::atomic<int> received = 0;
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void NoteSignal(int number) {
  const int before = received.exchange(number);
  if (number == SIGINT && before == SIGINT) _exit(kInterrupted);
}

}  // namespace

StopSignals::StopSignals() {
  received = 0;
  struct sigaction action = {};
  action.sa_handler = NoteSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    CHECK_EQ(sigaction(kSignals[i], &action, &before_[i]), 0);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &before_[i], nullptr);
  }
}

int StopSignals::Received() { return received; }

std::string SignalName(int number) {
  const char* name = sigabbrev_np(number);
  return name == nullptr ? absl::StrCat("signal ", number)
                         : absl::StrCat("SIG", name);
}

}  // namespace lorica
