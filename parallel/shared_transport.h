// Bytes between ranks that see the same memory: threads of one process, or
// processes of one host through a shared mapping.
//
// Each rank owns a segment: a counter and two slots. A call copies what this
// rank sends into one of its slots, raises its counter and waits until every
// counter has come as far; then it reads the slots of the others. Calls
// alternate between the slots, so a rank that overwrites a slot in call k has
// seen every rank begin call k - 1 and therefore be done with call k - 2: one
// wait a call is enough.
#ifndef LORICA_PARALLEL_SHARED_TRANSPORT_H_
#define LORICA_PARALLEL_SHARED_TRANSPORT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "parallel/transport.h"

namespace lorica {

// The segments of a group, by rank, and what keeps them mapped. Each is
// SharedTransport::SegmentBytes(slot_bytes) long, aligned to 64 bytes and was
// prepared before any rank opens its transport.
struct SharedSegments {
  std::vector<char*> by_rank;
  int64_t slot_bytes = 0;
  std::shared_ptr<const void> owner;
};

class SharedTransport : public Transport {
 public:
  // As large as 16 MiB a group allow, between 64 KiB and 1 MiB.
  static int64_t SlotBytes(int ranks);
  static int64_t SegmentBytes(int64_t slot_bytes);
  static void PrepareSegment(char* segment);

  // `idle` is called now and then in a long wait.
  SharedTransport(int rank, SharedSegments segments,
                  std::function<void()> idle);
  // Tells the others: a rank that still waits for this one ends the process.
  ~SharedTransport() override;

  std::vector<const void*> Exchange(absl::Span<const void* const> send,
                                    absl::Span<const int64_t> bytes) override;
  int64_t max_exchange_bytes() const override;
  void AllGather(void* data, absl::Span<const int64_t> bytes) override;
  void Broadcast(void* data, int64_t bytes, int root) override;
  void Barrier() override;
  std::vector<int> Missing() const override;

 private:
  struct Header {
    std::atomic<uint64_t> calls;  // That this rank has come to.
    std::atomic<bool> left;
  };

  Header* header(int rank) const;
  // The slot of `rank` in the present call.
  char* slot(int rank) const;
  void Meet();
  void WaitFor(int peer, uint64_t calls) const;

  SharedSegments segments_;
  std::function<void()> idle_;
  uint64_t calls_ = 0;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_SHARED_TRANSPORT_H_
