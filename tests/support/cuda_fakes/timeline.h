// The streams of all fake devices: what waits in them and what has run.
#ifndef LORICA_TESTS_SUPPORT_CUDA_FAKES_TIMELINE_H_
#define LORICA_TESTS_SUPPORT_CUDA_FAKES_TIMELINE_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/cuda_fakes/clock.h"
#include "tests/support/cuda_fakes/fakes.h"

namespace lorica::cuda_fakes {

struct Region {
  const void* data;
  size_t bytes;
};

inline bool Overlap(const Region& a, const Region& b) {
  const auto* a_begin = static_cast<const char*>(a.data);
  const auto* b_begin = static_cast<const char*>(b.data);
  return a_begin < b_begin + b.bytes && b_begin < a_begin + a.bytes;
}

inline bool Contains(const Region& outer, const Region& inner) {
  const auto* begin = static_cast<const char*>(outer.data);
  const auto* inner_begin = static_cast<const char*>(inner.data);
  return begin <= inner_begin &&
         inner_begin + inner.bytes <= begin + outer.bytes;
}

struct Stream;
struct Op;

// Operations that run together or not at all: a collective.
struct Meeting {
  std::string what;
  std::vector<std::shared_ptr<Op>> present;  // By rank; null: has not come.
  std::function<void()> run;
  bool complete() const;
};

// Something a stream was given.
struct Op {
  std::string name;
  std::vector<Region> reads;
  std::vector<Region> writes;
  std::function<void(const Op&)> run;
  std::shared_ptr<Op> after;  // Of an event that is waited for.
  std::shared_ptr<Meeting> meeting;
  size_t member = 0;  // Of the meeting.
  // Of a node: what a launch of its graph does to the copy that will run.
  std::function<void(Op*)> arrive;
  // The Timeline's.
  Stream* stream = nullptr;
  Stamp stamp;
  Clock clock;  // Before it runs: what the host knew.
  bool done = false;
};

// What captured streams were given: copies of the operations run at each
// launch, those of a lane in their order.
struct Node {
  enum class Kind : uint8_t { kWork, kRecord };

  Op op;
  size_t lane = 0;              // One for each stream; 0 is the first's.
  std::optional<size_t> after;  // A node of another lane.
  Kind kind = Kind::kWork;
};
using Graph = std::vector<Node>;

// Whose calls that touch the host a capture forbids.
enum class Forbidden : uint8_t { kToAll, kToThread, kToNone };

// From the beginning to the end in one stream, with all streams that waited for
// its events in between.
struct Capture {
  std::vector<Stream*> streams;  // By lane.
  Forbidden forbidden;
  std::thread::id thread;
  bool valid = true;
  Graph graph;
};

struct Stream {
  size_t lane = 0;
  uint32_t ticks = 0;
  std::deque<std::shared_ptr<Op>> pending;
  std::shared_ptr<Op> last;
  Clock clock;                       // Of the last operation that ran.
  std::shared_ptr<Capture> capture;  // Null: what it is given runs.
};

// One for the process: threads, streams and reports. Every function takes the
// one lock, which Run of an operation is called under.
class Timeline {
 public:
  static Timeline& Get();

  void Reset(const Settings& settings);
  const Settings& settings() const { return settings_; }
  std::vector<std::string> TakeReports();
  void Report(std::string text);

  // The calling thread is a rank: it counts among those that may wait for each
  // other until it ends.
  void Enter();

  Stream* NewStream();
  // Null where the stream is captured: its graph keeps the operation.
  std::shared_ptr<Op> Add(Stream* stream, Op op);
  // Whether a call has no place in a capture of its stream, or of any stream
  // that forbids it to the calling thread: reported, and no graph will come of
  // the capture.
  bool ForbidsInStream(Stream* stream, const std::string& call);
  bool Forbids(const std::string& call);
  // No graph will come of a capture, and why.
  void Spoil(Capture* capture, std::string why);
  void CountGraphLaunch() { ++graph_launches_; }
  int64_t graph_launches() const { return graph_launches_; }
  // Runs what `op` needs and `op`. False where that cannot be; null is done.
  bool RunUntil(const std::shared_ptr<Op>& op);
  // Runs one operation that `op` needs, if one can run. Whether `op` is done.
  bool Poke(const std::shared_ptr<Op>& op);
  bool RunAll();
  // An operation that has not run and names some of the region; null: none.
  const Op* PendingUse(const Region& region) const;
  // What the calling thread knows to be done.
  const Clock& seen() const;

  std::recursive_mutex& mutex() { return mutex_; }
  // All ranks have come to a collective.
  void CountCollective() { ++collectives_; }
  int64_t collectives() const { return collectives_; }
  // Of the calling thread.
  int64_t host_waits() const;
  int64_t launches() const;
  void CountLaunch();

  // Something changed that a waiting thread may wait for.
  void Progress();
  // Time of the devices, told by operations when they run.
  void Spend(double microseconds) { microseconds_ += microseconds; }
  double microseconds() const { return microseconds_; }
  // Whether threads gave up waiting.
  bool dead() const { return dead_; }

 private:
  struct Thread;
  struct Wait {
    const Op* op;
    uint64_t progress;
  };
  using Lock = std::unique_lock<std::recursive_mutex>;

  static Thread& Current();
  static bool Ready(const Op& op);
  static bool Runnable(const Op& op);
  void Collect(const Op* op, std::set<const Stream*>* seen,
               std::vector<std::shared_ptr<Op>>* runnable) const;
  std::vector<std::shared_ptr<Op>> RunnableFor(const Op& op);
  std::vector<std::shared_ptr<Op>> RunnableAnywhere() const;
  std::shared_ptr<Op> Choose(const std::vector<std::shared_ptr<Op>>& from);
  void Execute(const std::shared_ptr<Op>& op);
  bool RunUntil(const std::shared_ptr<Op>& op, Lock* lock);
  bool WaitFor(const Op& op, Lock* lock);
  bool EverybodyWaits() const;
  static const Op& Obstacle(const Op& op);
  void ReportDeadlock(const char* how);

  std::recursive_mutex mutex_;
  std::condition_variable_any changed_;
  Settings settings_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<std::string> reports_;
  std::map<std::thread::id, Wait> waits_;
  int threads_ = 0;
  uint64_t epoch_ = 0;
  uint64_t progress_ = 0;
  double microseconds_ = 0.0;
  int64_t collectives_ = 0;
  int64_t graph_launches_ = 0;
  bool dead_ = false;
};

// The timeline's lock, which every call of a library takes.
inline std::unique_lock<std::recursive_mutex> Lock() {
  return std::unique_lock(Timeline::Get().mutex());
}

}  // namespace lorica::cuda_fakes

#endif  // LORICA_TESTS_SUPPORT_CUDA_FAKES_TIMELINE_H_
