// A group of ranks and what they say to each other.
#ifndef LORICA_PARALLEL_COMMUNICATOR_H_
#define LORICA_PARALLEL_COMMUNICATOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "runtime/tensor.h"

namespace lorica {

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
std::ostream& operator<<(std::ostream& out, Purpose purpose);

// Calls and payload bytes of one purpose on this rank. Payload is the size of
// the whole array the collective is about, whatever the algorithm sends.
struct Traffic {
  int64_t calls = 0;
  int64_t bytes = 0;
  friend bool operator==(const Traffic&, const Traffic&) = default;
};

// All ranks of a group call the same collectives in the same order. A group of
// one moves nothing and counts nothing. Sums are taken in a fixed order over
// ranks, so every rank gets the same bits, run after run. A peer that fails is
// fatal: see watchdog.h.
class Communicator {
 public:
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // In place, on dense tensors of F32, BF16 (summed in F32, rounded once), I32
  // or I64.
  void AllReduceSum(Tensor* tensor, Purpose purpose);
  void AllReduceMax(Tensor* tensor, Purpose purpose);  // F32.
  // The ranks' row slices, each of rows(rank, size) rows, one under another.
  Tensor AllGatherRows(const Tensor& slice, absl::Span<const int64_t> rows,
                       Purpose purpose);
  // Sums [T, H] over the ranks and returns this rank's row slice.
  Tensor ReduceScatterRows(const Tensor& tensor, absl::Span<const int64_t> rows,
                           Purpose purpose);

  // The same on host values, for control and statistics.
  void AllReduceSum(absl::Span<double> values, Purpose purpose);
  void AllReduceSum(absl::Span<int64_t> values, Purpose purpose);
  void AllReduceMax(absl::Span<int64_t> values, Purpose purpose);
  // Every rank's bytes, by rank; lengths may differ.
  std::vector<std::string> AllGatherBytes(const std::string& bytes,
                                          Purpose purpose);
  std::string BroadcastBytes(std::string bytes, int root, Purpose purpose);
  void Barrier();

  // A subgroup of the ranks that give the same color, ordered by key.
  virtual std::unique_ptr<Communicator> Split(int color, int key) = 0;

  const Traffic& traffic(Purpose purpose) const {
    return traffic_[static_cast<int>(purpose)];
  }
  void ResetTraffic() { traffic_ = std::vector<Traffic>(kNumPurposes); }

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {
    ResetTraffic();
  }

  // What a transport provides: bytes in host memory. `send` is cut in size()
  // pieces by counts and offsets; piece r goes to rank r and the piece for this
  // rank from rank r lands at recv + recv_offsets[r].
  struct Pieces {
    std::vector<int64_t> counts;
    std::vector<int64_t> offsets;
  };
  virtual void AllToAll(const void* send, const Pieces& send_pieces, void* recv,
                        const Pieces& recv_pieces) = 0;
  // Rank r's `counts[r]` bytes land at recv + offsets[r] on every rank. `send`
  // may already lie in place.
  virtual void AllGather(const void* send, void* recv,
                         const Pieces& pieces) = 0;
  virtual void Broadcast(void* data, int64_t bytes, int root) = 0;
  virtual void Wait() = 0;  // Barrier.

 private:
  int rank_;
  int size_;
  std::vector<Traffic> traffic_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_COMMUNICATOR_H_
