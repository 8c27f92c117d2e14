// Ends a rank whose collective does not end: a peer was stopped, killed or cut
// off, and nobody else will say so.
#ifndef LORICA_PARALLEL_WATCHDOG_H_
#define LORICA_PARALLEL_WATCHDOG_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "parallel/communicator.h"
#include "parallel/device_collectives.h"

namespace lorica {

// A collective in progress, or several that were recorded.
struct WatchedCall {
  const Communicator* group = nullptr;
  const char* collective = "";
  Purpose purpose = Purpose::kControl;
  int64_t sequence = 0;  // Counts the group's collectives from 1.
  int64_t calls = 1;     // Of consecutive numbers; several of any purpose.
  int64_t bytes = 0;
};

// "rank 0 waited 60s in all-reduce sum 17 (adapter gradient, 4096 bytes, group
// of ranks 0 1) for rank 1"; the last part where the transport knows. Several
// are "recorded collectives 17 to 53 (65536 bytes, ...".
std::string Describe(const WatchedCall& call, absl::Duration waited);

// A thread beside a rank's own. When a collective lasts longer than `timeout`
// it writes one line to standard error, leaves the other survivors kGrace to
// write theirs before the launcher ends them, and ends the process with
// kExitCode. Begin and End cost some ten nanoseconds.
class Watchdog {
 public:
  static constexpr int kExitCode = 75;  // EX_TEMPFAIL: start again.
  static constexpr absl::Duration kGrace = absl::Seconds(2);
  // A wait worth a line in a process that was asked to end.
  static constexpr absl::Duration kLongWait = absl::Milliseconds(300);

  // `told_to_end`, if given, says whether the process was asked to end, as
  // launchers ask the survivors of a rank that died, moments before they
  // insist. A rank that then still waits writes what for, and goes on waiting:
  // whoever it waits for may only be slow. Called by the watchdog's thread.
  explicit Watchdog(absl::Duration timeout,
                    std::function<bool()> told_to_end = nullptr);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Called by the rank's thread around each collective.
  void Begin(const WatchedCall& call);
  void End();
  // Between Begin and End: the call goes on in `work` after End. It is watched
  // from the moment those followed before it are done.
  void Follow(std::shared_ptr<DeviceWork> work);

 private:
  struct Followed {
    WatchedCall call;
    std::shared_ptr<DeviceWork> work;
  };

  void Watch();
  void WatchDevice();
  void DropDone();
  static void Write(const WatchedCall& call, absl::Duration waited,
                    absl::string_view why);
  [[noreturn]] void EndProcess() const;

  const absl::Duration timeout_;
  const std::function<bool()> told_to_end_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopped_ = false;
  std::optional<WatchedCall> call_;
  uint64_t begun_ = 0;  // Collectives begun; tells one from the next.
  std::deque<Followed> followed_;
  absl::Time followed_since_;  // When the first of them became the first.
  std::thread thread_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_WATCHDOG_H_
