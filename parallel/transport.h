// How a group of ranks moves bytes of host memory: all that differs between
// threads of one process, processes of one host and hosts of a network.
#ifndef LORICA_PARALLEL_TRANSPORT_H_
#define LORICA_PARALLEL_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"

namespace lorica {

// All ranks make the same calls in the same order, from one thread each. A
// failing peer or link is fatal.
class Transport {
 public:
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Every rank sends the bytes[r] bytes at send[r] to rank r. Returns, by
  // sender, where this rank finds what was sent to it; valid until the next
  // call. What it sends itself stays where it is. Bytes on all ranks are the
  // same, and their sum is at most max_exchange_bytes().
  virtual std::vector<const void*> Exchange(
      absl::Span<const void* const> send, absl::Span<const int64_t> bytes) = 0;
  virtual int64_t max_exchange_bytes() const = 0;

  // Pieces of bytes[r] bytes lie one under another at `data`. This rank's is
  // there; afterwards all are.
  virtual void AllGather(void* data, absl::Span<const int64_t> bytes) = 0;
  virtual void Broadcast(void* data, int64_t bytes, int root) = 0;
  virtual void Barrier() = 0;

  // Joins the ranks that give the same color, ordered by key, then by rank.
  virtual std::unique_ptr<Transport> Split(int color, int key) = 0;

  // Ranks that the present call waits for: those that have not come to it, or
  // not taken what it sends them. Any thread may ask.
  virtual std::vector<int> Missing() const { return {}; }

 protected:
  Transport(int rank, int size) : rank_(rank), size_(size) {}

 private:
  int rank_;
  int size_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_TRANSPORT_H_
