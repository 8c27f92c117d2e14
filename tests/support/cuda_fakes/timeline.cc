#include "tests/support/cuda_fakes/timeline.h"

#include <algorithm>
#include <utility>

#include "tests/support/cuda_fakes/memory.h"
#include "tests/support/cuda_fakes/registrations.h"

namespace lorica::cuda_fakes {
namespace {

constexpr size_t kMaxReports = 16;
// Waiting threads look up now and then for silence.
constexpr std::chrono::milliseconds kLookUp(100);

}  // namespace

bool Meeting::complete() const {
  return std::all_of(present.begin(), present.end(),
                     [](const auto& op) { return op != nullptr; });
}

// What the calling thread has waited for, and whether it is a rank.
struct Timeline::Thread {
  ~Thread() {
    Timeline& timeline = Get();
    const Lock lock(timeline.mutex_);
    if (epoch == timeline.epoch_ && entered) --timeline.threads_;
    timeline.Progress();
  }

  uint64_t epoch = 0;
  bool entered = false;
  Clock seen;
  int64_t host_waits = 0;
  int64_t launches = 0;
};

Timeline& Timeline::Get() {
  static Timeline* const timeline = new Timeline();
  return *timeline;
}

Timeline::Thread& Timeline::Current() {
  thread_local Thread thread;
  if (thread.epoch != Get().epoch_) {
    thread.epoch = Get().epoch_;
    thread.entered = false;
    thread.seen = {};
    thread.host_waits = 0;
    thread.launches = 0;
  }
  return thread;
}

void Timeline::Reset(const Settings& settings) {
  const Lock lock(mutex_);
  settings_ = settings;
  random_.seed(settings.seed);
  for (const auto& stream : streams_) {
    for (const auto& op : stream->pending) {
      // They hold each other.
      if (op->meeting != nullptr) *op->meeting = {};
    }
  }
  streams_.clear();
  reports_.clear();
  collectives_ = 0;
  graph_launches_ = 0;
  waits_.clear();
  threads_ = 0;
  ++epoch_;
  microseconds_ = 0.0;
  dead_ = false;
}

std::vector<std::string> Timeline::TakeReports() {
  const Lock lock(mutex_);
  return std::exchange(reports_, {});
}

void Timeline::Report(std::string text) {
  const Lock lock(mutex_);
  if (reports_.size() < kMaxReports) reports_.push_back(std::move(text));
}

void Timeline::Enter() {
  const Lock lock(mutex_);
  Thread& thread = Current();
  if (!thread.entered) ++threads_;
  thread.entered = true;
}

Stream* Timeline::NewStream() {
  const Lock lock(mutex_);
  streams_.push_back(std::make_unique<Stream>());
  streams_.back()->lane = streams_.size() - 1;
  return streams_.back().get();
}

void Timeline::Progress() {
  const Lock lock(mutex_);
  ++progress_;
  changed_.notify_all();
}

std::shared_ptr<Op> Timeline::Add(Stream* stream, Op op) {
  const Lock lock(mutex_);
  if (Capture* const capture = stream->capture.get()) {
    const auto own =
        std::find(capture->streams.begin(), capture->streams.end(), stream);
    capture->graph.push_back(
        {.op = std::move(op),
         .lane = static_cast<size_t>(own - capture->streams.begin())});
    return nullptr;
  }
  auto added = std::make_shared<Op>(std::move(op));
  added->stream = stream;
  added->clock = Current().seen;
  stream->pending.push_back(added);
  if (added->meeting != nullptr) {
    added->meeting->present[added->member] = added;
  }
  stream->last = added;
  Progress();
  if (settings_.policy == Policy::kEager) RunAll();
  return added;
}

void Timeline::Spoil(Capture* capture, std::string why) {
  capture->valid = false;
  Report(std::move(why));
}

bool Timeline::ForbidsInStream(Stream* stream, const std::string& call) {
  const Lock lock(mutex_);
  if (stream->capture == nullptr) return false;
  Spoil(stream->capture.get(), call + " has no place in a stream's capture");
  return true;
}

bool Timeline::Forbids(const std::string& call) {
  const Lock lock(mutex_);
  bool forbids = false;
  for (const auto& stream : streams_) {
    Capture* const capture = stream->capture.get();
    if (capture == nullptr || capture->streams[0] != stream.get() ||
        capture->forbidden == Forbidden::kToNone ||
        (capture->forbidden == Forbidden::kToThread &&
         capture->thread != std::this_thread::get_id())) {
      continue;
    }
    Spoil(capture, call + " has no place in a stream's capture");
    forbids = true;
  }
  return forbids;
}

bool Timeline::Ready(const Op& op) {
  return op.stream->pending.front().get() == &op &&
         (op.after == nullptr || op.after->done);
}

bool Timeline::Runnable(const Op& op) {
  if (op.meeting == nullptr) return Ready(op);
  return op.meeting->complete() &&
         std::all_of(op.meeting->present.begin(), op.meeting->present.end(),
                     [](const auto& member) { return Ready(*member); });
}

void Timeline::Collect(const Op* op, std::set<const Stream*>* seen,
                       std::vector<std::shared_ptr<Op>>* runnable) const {
  if (op->done || !seen->insert(op->stream).second) return;
  const std::shared_ptr<Op>& head = op->stream->pending.front();
  if (Runnable(*head)) {
    runnable->push_back(head);
    return;
  }
  if (head->after != nullptr) Collect(head->after.get(), seen, runnable);
  if (head->meeting == nullptr) return;
  for (const auto& member : head->meeting->present) {
    if (member != nullptr) Collect(member.get(), seen, runnable);
  }
}

std::vector<std::shared_ptr<Op>> Timeline::RunnableAnywhere() const {
  std::vector<std::shared_ptr<Op>> runnable;
  for (const auto& stream : streams_) {
    if (!stream->pending.empty() && Runnable(*stream->pending.front())) {
      runnable.push_back(stream->pending.front());
    }
  }
  return runnable;
}

std::vector<std::shared_ptr<Op>> Timeline::RunnableFor(const Op& op) {
  if (settings_.policy == Policy::kLazyRandom && random_() % 4 == 0) {
    return RunnableAnywhere();
  }
  std::set<const Stream*> seen;
  std::vector<std::shared_ptr<Op>> runnable;
  Collect(&op, &seen, &runnable);
  return runnable;
}

std::shared_ptr<Op> Timeline::Choose(
    const std::vector<std::shared_ptr<Op>>& from) {
  if (settings_.policy == Policy::kLazyRandom) {
    return from[random_() % from.size()];
  }
  return *std::max_element(from.begin(), from.end(),
                           [](const auto& a, const auto& b) {
                             return a->stream->lane < b->stream->lane;
                           });
}

void Timeline::Execute(const std::shared_ptr<Op>& op) {
  const std::shared_ptr<Meeting> meeting = op->meeting;
  const std::vector<std::shared_ptr<Op>> members =
      meeting != nullptr ? meeting->present : std::vector{op};
  Clock all;
  bool there = true;
  for (const auto& member : members) {
    member->clock.Join(member->stream->clock);
    if (member->after != nullptr) member->clock.Join(member->after->clock);
    all.Join(member->clock);
  }
  for (const auto& member : members) {
    member->stamp = {member->stream->lane, ++member->stream->ticks};
    member->clock.Join(all);
    member->clock.Add(member->stamp);
    there &= DeviceMemory::Get().Touch(*member);
    if (there && member->run != nullptr) member->run(*member);
  }
  if (there && meeting != nullptr) meeting->run();
  for (const auto& member : members) {
    member->done = true;
    member->run = nullptr;
    member->after = nullptr;
    member->stream->clock = member->clock;
    member->stream->pending.pop_front();
  }
  if (meeting != nullptr) *meeting = {};
  Progress();
}

bool Timeline::RunUntil(const std::shared_ptr<Op>& op) {
  Lock lock(mutex_);
  return RunUntil(op, &lock);
}

bool Timeline::RunUntil(const std::shared_ptr<Op>& op, Lock* lock) {
  if (op == nullptr) return true;
  if (!op->done) ++Current().host_waits;
  while (!op->done) {
    const std::vector<std::shared_ptr<Op>> runnable = RunnableFor(*op);
    if (!runnable.empty()) {
      Execute(Choose(runnable));
    } else if (!WaitFor(*op, lock)) {
      return false;
    }
  }
  Current().seen.Join(op->clock);
  return true;
}

bool Timeline::Poke(const std::shared_ptr<Op>& op) {
  const Lock lock(mutex_);
  if (op == nullptr) return true;
  if (!op->done) {
    const std::vector<std::shared_ptr<Op>> runnable = RunnableFor(*op);
    if (!runnable.empty()) Execute(Choose(runnable));
  }
  if (op->done) Current().seen.Join(op->clock);
  return op->done;
}

bool Timeline::RunAll() {
  const Lock lock(mutex_);
  for (;;) {
    const std::vector<std::shared_ptr<Op>> runnable = RunnableAnywhere();
    if (runnable.empty()) break;
    Execute(Choose(runnable));
  }
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const auto& s) { return s->pending.empty(); });
}

const Op* Timeline::PendingUse(const Region& region) const {
  const auto named = [&](const std::vector<Region>& regions) {
    return std::any_of(regions.begin(), regions.end(),
                       [&](const Region& r) { return Overlap(r, region); });
  };
  for (const auto& stream : streams_) {
    for (const auto& op : stream->pending) {
      if (named(op->reads) || named(op->writes)) return op.get();
    }
  }
  return nullptr;
}

const Clock& Timeline::seen() const { return Current().seen; }

int64_t Timeline::host_waits() const { return Current().host_waits; }

int64_t Timeline::launches() const { return Current().launches; }

void Timeline::CountLaunch() {
  const Lock lock(mutex_);
  ++Current().launches;
}

bool Timeline::EverybodyWaits() const {
  return static_cast<int>(waits_.size()) >= threads_ &&
         std::all_of(waits_.begin(), waits_.end(), [this](const auto& wait) {
           return wait.second.progress == progress_;
         });
}

// Until something changes. False where nothing can.
bool Timeline::WaitFor(const Op& op, Lock* lock) {
  if (dead_) return false;
  const auto start = std::chrono::steady_clock::now();
  const std::thread::id me = std::this_thread::get_id();
  waits_[me] = {&op, progress_};
  while (!dead_ && waits_[me].progress == progress_) {
    const std::chrono::duration<double> waited =
        std::chrono::steady_clock::now() - start;
    if (Current().entered && EverybodyWaits()) {
      ReportDeadlock("all ranks wait");
    } else if (waited.count() > settings_.silence_seconds) {
      ReportDeadlock("nothing happens");
    } else {
      changed_.wait_for(*lock, kLookUp);
    }
  }
  waits_.erase(me);
  return !dead_;
}

// What keeps an operation from running: the first of its stream, or of the
// stream whose event that waits for, and so on.
const Op& Timeline::Obstacle(const Op& op) {
  const Op* head = op.stream->pending.front().get();
  std::set<const Stream*> seen = {op.stream};
  while (head->after != nullptr && !head->after->done &&
         seen.insert(head->after->stream).second) {
    head = head->after->stream->pending.front().get();
  }
  return *head;
}

void Timeline::ReportDeadlock(const char* how) {
  std::string text = std::string("deadlock, ") + how + ":";
  for (const auto& [thread, wait] : waits_) {
    const Op& head = Obstacle(*wait.op);
    text += " '" + wait.op->name + "' waits behind '" + head.name + "'";
    if (head.meeting != nullptr) {
      for (size_t r = 0; r < head.meeting->present.size(); ++r) {
        if (head.meeting->present[r] == nullptr) {
          text += " for rank " + std::to_string(r);
        }
      }
    }
    text += ";";
  }
  Report(std::move(text));
  dead_ = true;
  changed_.notify_all();
}

void Reset(const Settings& settings) {
  Timeline::Get().Reset(settings);
  DeviceMemory::Get().Reset();
  Registrations::Get().Reset();
}

std::vector<std::string> TakeReports() { return Timeline::Get().TakeReports(); }

int64_t Collectives() {
  const std::lock_guard lock(Timeline::Get().mutex());
  return Timeline::Get().collectives();
}

int64_t HostWaits() {
  const std::lock_guard lock(Timeline::Get().mutex());
  return Timeline::Get().host_waits();
}

int64_t Launches() {
  const std::lock_guard lock(Timeline::Get().mutex());
  return Timeline::Get().launches();
}

int64_t GraphLaunches() {
  const std::lock_guard lock(Timeline::Get().mutex());
  return Timeline::Get().graph_launches();
}

size_t BytesAllocated() { return DeviceMemory::Get().bytes(); }

int64_t Allocations() { return DeviceMemory::Get().allocations(); }

double DeviceMicroseconds() { return Timeline::Get().microseconds(); }

}  // namespace lorica::cuda_fakes
