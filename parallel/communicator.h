// A group of ranks and what they say to each other.
#ifndef LORICA_PARALLEL_COMMUNICATOR_H_
#define LORICA_PARALLEL_COMMUNICATOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "parallel/device_collectives.h"
#include "parallel/transport.h"
#include "runtime/tensor.h"

namespace lorica {

class Watchdog;

// What a collective is for: counted, and named when something hangs.
enum class Purpose : uint8_t {
  kActivation,  // Forward, between layers of a tensor group.
  kActivationGrad,
  kLoss,  // Softmax statistics, loss values, norms.
  kAdapterGrad,
  kCheckpoint,
  kControl,  // Agreement, set-up.
};
inline constexpr int kNumPurposes = 6;
const char* NameOf(Purpose purpose);
std::ostream& operator<<(std::ostream& out, Purpose purpose);

// Calls and payload bytes of one purpose on this rank. Payload is the size of
// the whole array the collective is about, whatever the algorithm sends.
struct Traffic {
  int64_t calls = 0;
  int64_t bytes = 0;
  Traffic& operator+=(const Traffic& other) {
    calls += other.calls;
    bytes += other.bytes;
    return *this;
  }
  friend bool operator==(const Traffic&, const Traffic&) = default;
};
std::ostream& operator<<(std::ostream& out, const Traffic& traffic);

// Calls that are part of work that a device recorded and does again with it.
struct RecordedCalls {
  std::array<Traffic, kNumPurposes> traffic = {};
};

// The order of additions on devices. Activations are not needed to the same
// bits on every mesh: tensor ranks change rounding anyway.
struct DeviceSums {
  SumOrder activations = SumOrder::kFastest;
  SumOrder others = SumOrder::kTree;
};

// All ranks of a group call the same collectives in the same order, with
// arrays of the same size; each rank from one thread. A group of one moves
// nothing and counts nothing. Sums are taken in a fixed order over ranks, the
// tree of tree_sum.h, so every rank gets the same bits, run after run, whatever
// the transport. A peer that fails is fatal: see watchdog.h.
//
// Large sums are cut in one chunk a rank: the chunks are exchanged, each rank
// sums its own, and the sums are gathered, 2 (n - 1) / n of the array sent by
// each of n ranks. Small arrays are gathered whole and summed everywhere, which
// waits once instead of twice.
//
// Tensors in memory that the host cannot address travel by device collectives
// where there are any, else by way of the host. Tensors of a device that
// computes nothing (Effect::kNone) do not travel: no other rank is needed, and
// results are as large as ever.
class Communicator {
 public:
  explicit Communicator(std::unique_ptr<Transport> transport);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  // The rank in the undivided world of rank `peer` of this group.
  int world_rank(int peer) const { return world_ranks_[peer]; }

  // Gives this group, and groups split from it from now on, collectives of
  // their devices. They are opened when a tensor first needs them, which is
  // fatal where it fails, or here and now:
  void SetDeviceCollectives(OpenDeviceCollectives open, DeviceSums sums);
  bool has_device_collectives() const { return open_device_ != nullptr; }
  absl::Status OpenDeviceCollectivesNow();

  // In place, on dense tensors of F32, BF16 (summed in F32, rounded once), I32
  // or I64.
  void AllReduceSum(Tensor* tensor, Purpose purpose);
  void AllReduceMax(Tensor* tensor, Purpose purpose);  // F32; NaN wins.
  // AllReduceSum beside what the tensor's device is given from now on, where
  // the device has collectives of its own, else at once. Nobody may touch the
  // tensor or let go of it before JoinSums.
  void StartAllReduceSum(Tensor* tensor, Purpose purpose);
  // What `device` is given from now on follows every sum that was started.
  void JoinSums(Device* device);
  // Memory [elements] F32 that collectives read and write without a copy, on
  // all ranks or, where one has none, absent: then any memory is as good. Ranks
  // may ask for different amounts. It must go before the group.
  Tensor CollectiveMemory(Device* device, int64_t elements);
  // The ranks' row slices, rank r's of rows[r] rows, one under another: [T, H].
  // Slices are dense. In a group of one the slice itself.
  Tensor AllGatherRows(const Tensor& slice, absl::Span<const int64_t> rows,
                       Purpose purpose);
  // Sums [T, H] over the ranks and returns this rank's row slice, that of
  // rank r having rows[r] rows. Types and rounding as AllReduceSum's. In a
  // group of one the tensor itself.
  Tensor ReduceScatterRows(const Tensor& tensor, absl::Span<const int64_t> rows,
                           Purpose purpose);

  // What is called between the two is part of work that is being recorded
  // (runtime/recording.h), by all ranks alike: it does not run, so it neither
  // counts nor is watched, and `calls` receives it. Only collectives of devices
  // that are not started beside other work have a place there.
  void BeginRecording(RecordedCalls* calls);
  void EndRecording();
  // `replay` gives `device` recorded work again, on all ranks the same: the
  // calls that are part of it count, take their numbers and are watched, as one
  // call that lasts until the work is done.
  void Replay(const RecordedCalls& calls, Device* device,
              const std::function<void()>& replay);

  // The same on host values, for control and statistics.
  void AllReduceSum(absl::Span<float> values, Purpose purpose);
  void AllReduceSum(absl::Span<double> values, Purpose purpose);
  void AllReduceSum(absl::Span<int64_t> values, Purpose purpose);
  void AllReduceMax(absl::Span<float> values, Purpose purpose);  // NaN wins.
  void AllReduceMax(absl::Span<int64_t> values, Purpose purpose);
  // Every rank's bytes, by rank; lengths may differ.
  std::vector<std::string> AllGatherBytes(const std::string& bytes,
                                          Purpose purpose);
  // The bytes of rank `root`; the others' argument is ignored.
  std::string BroadcastBytes(std::string bytes, int root, Purpose purpose);
  void Barrier();

  // The subgroup of the ranks that give the same color (not negative), ordered
  // by key, then by rank. It is watched as this group is.
  std::unique_ptr<Communicator> Split(int color, int key);

  const Traffic& traffic(Purpose purpose) const {
    return traffic_[static_cast<size_t>(purpose)];
  }
  void ResetTraffic() { traffic_ = {}; }

  // Watches every further collective of this group, and of groups split from
  // it from now on. The watchdog must outlive them; null ends the watch.
  void SetWatchdog(Watchdog* watchdog) { watchdog_ = watchdog; }
  // Members that have not come to the present collective, by world rank, where
  // the transport knows. Any thread may ask.
  std::vector<int> Missing() const;

 private:
  class Call;
  // Combines terms of the ranks, in rank order, into `out`, elementwise.
  using Combine = void (*)(absl::Span<const void* const> terms, int64_t count,
                           void* out);
  struct Array {
    void* data;
    int64_t count;
    int64_t element_bytes;
  };

  Communicator(std::unique_ptr<Transport> transport,
               std::vector<int> world_ranks, Watchdog* watchdog);
  // A group split from this one.
  std::unique_ptr<Communicator> Part(std::unique_ptr<Transport> transport,
                                     std::vector<int> world_ranks) const;
  void AllReduce(const Array& array, Combine combine);
  // Whether the queue of the tensor's device waits for the sum.
  enum class Sum : uint8_t { kFollowed, kBeside };
  void AllReduceSum(Tensor* tensor, Purpose purpose, Sum sum);
  // Null where `tensor` is for the host's collectives.
  DeviceCollectives* DeviceCollectivesFor(const Tensor& tensor);
  SumOrder OrderFor(Purpose purpose) const;

  std::unique_ptr<Transport> transport_;
  std::vector<int> world_ranks_;
  std::array<Traffic, kNumPurposes> traffic_ = {};
  int64_t sequence_ = 0;                // Collectives so far.
  RecordedCalls* recording_ = nullptr;  // Null: calls run.
  Watchdog* watchdog_ = nullptr;
  std::vector<char> scratch_;
  OpenDeviceCollectives open_device_;
  DeviceSums device_sums_;
  std::unique_ptr<DeviceCollectives> device_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_COMMUNICATOR_H_
