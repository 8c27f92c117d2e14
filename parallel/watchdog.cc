#include "parallel/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace lorica {
namespace {

constexpr absl::Duration kAbortTime = absl::Milliseconds(200);
constexpr char kPeerGone[] =
    "a peer has stopped or is out of reach, so this rank ends";

}  // namespace

std::string Describe(const WatchedCall& call, absl::Duration waited) {
  const Communicator& group = *call.group;
  std::vector<int> members;
  for (int peer = 0; peer < group.size(); ++peer) {
    members.push_back(group.world_rank(peer));
  }
  const std::string what =
      call.calls == 1
          ? absl::StrCat(call.sequence, " (", NameOf(call.purpose), ", ")
          : absl::StrCat(call.sequence, " to ", call.sequence + call.calls - 1,
                         " (");
  std::string text = absl::StrCat(
      "rank ", group.world_rank(group.rank()), " waited ",
      absl::FormatDuration(waited), " in ", call.collective, " ", what,
      call.bytes, " bytes, group of ranks ", absl::StrJoin(members, " "), ")");
  const std::vector<int> missing = group.Missing();
  if (!missing.empty()) {
    absl::StrAppend(&text, " for rank ", absl::StrJoin(missing, " "));
  }
  return text;
}

Watchdog::Watchdog(absl::Duration timeout, std::function<bool()> told_to_end)
    : timeout_(timeout),
      told_to_end_(std::move(told_to_end)),
      thread_([this] { Watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  stop_.notify_one();
  thread_.join();
}

void Watchdog::Begin(const WatchedCall& call) {
  const std::lock_guard lock(mutex_);
  call_ = call;
  ++begun_;
}

void Watchdog::End() {
  const std::lock_guard lock(mutex_);
  call_.reset();
}

// In one piece, so that lines of several ranks do not mix.
void Watchdog::Write(const WatchedCall& call, absl::Duration waited,
                     absl::string_view why) {
  const std::string line = absl::StrCat(
      "lorica: ", Describe(call, absl::Trunc(waited, absl::Milliseconds(1))),
      "; ", why, "\n");
  [[maybe_unused]] const ssize_t written =
      write(STDERR_FILENO, line.data(), line.size());
}

void Watchdog::EndProcess() const {
  absl::SleepFor(std::min(kGrace, timeout_));
  // Devices stop waiting for peers, and only now: what they yield from here on
  // must reach nobody. Abort may hang as well, hence a thread of its own.
  if (!followed_.empty()) {
    std::thread([work = followed_.front().work] { work->Abort(); }).detach();
    absl::SleepFor(kAbortTime);
  }
  _exit(kExitCode);
}

void Watchdog::Follow(std::shared_ptr<DeviceWork> work) {
  const std::lock_guard lock(mutex_);
  if (!call_.has_value()) return;
  DropDone();
  if (followed_.empty()) followed_since_ = absl::Now();
  followed_.push_back({*call_, std::move(work)});
}

void Watchdog::DropDone() {
  while (!followed_.empty() &&
         followed_.front().work->Ask() == DeviceWork::State::kDone) {
    followed_.pop_front();
    followed_since_ = absl::Now();
  }
}

// The device's part of collectives.
void Watchdog::WatchDevice() {
  DropDone();
  if (followed_.empty()) return;
  const Followed& first = followed_.front();
  const absl::Duration waited = absl::Now() - followed_since_;
  if (first.work->Ask() == DeviceWork::State::kFailed) {
    Write(first.call, waited,
          absl::StrCat("it failed, ", first.work->error(),
                       ", so this rank ends"));
    EndProcess();
  }
  if (waited < timeout_) return;
  Write(first.call, waited, kPeerGone);
  EndProcess();
}

// Looks several times a timeout instead of taking the time of every call.
void Watchdog::Watch() {
  const absl::Duration longest =
      told_to_end_ ? kLongWait / 3 : absl::Seconds(1);
  const auto period = absl::ToChronoMilliseconds(
      std::clamp(timeout_ / 8, absl::Milliseconds(1), longest));
  std::unique_lock lock(mutex_);
  uint64_t seen = 0;
  bool spoke = false;
  absl::Time since = absl::Now();
  while (!stop_.wait_for(lock, period, [this] { return stopped_; })) {
    WatchDevice();
    if (!call_.has_value() || begun_ != seen) {
      seen = begun_;
      since = absl::Now();
      continue;
    }
    const absl::Duration waited = absl::Now() - since;
    if (waited >= kLongWait && !spoke && told_to_end_ && told_to_end_()) {
      spoke = true;
      Write(*call_, waited, "this process was told to end");
    }
    if (waited < timeout_) continue;
    // The lock is kept: a collective that ends now does not go on.
    Write(*call_, waited, kPeerGone);
    EndProcess();
  }
}

}  // namespace lorica
