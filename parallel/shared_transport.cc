#include "parallel/shared_transport.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "runtime/check.h"

namespace lorica {
namespace {

constexpr int64_t kHeaderBytes = 128;  // Keeps counters on lines of their own.
constexpr int64_t kPieceAlignment = 64;

int64_t AlignUp(int64_t bytes) {
  return (bytes + kPieceAlignment - 1) / kPieceAlignment * kPieceAlignment;
}

void Copy(void* dst, const void* src, int64_t bytes) {
  if (bytes > 0) std::memcpy(dst, src, static_cast<size_t>(bytes));
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

int64_t SharedTransport::SlotBytes(int ranks) {
  constexpr int64_t kGroupBytes = int64_t{16} << 20;
  return std::clamp<int64_t>(AlignUp(kGroupBytes / (2 * ranks)), 64 << 10,
                             1 << 20);
}

int64_t SharedTransport::SegmentBytes(int64_t slot_bytes) {
  return kHeaderBytes + 2 * slot_bytes;
}

void SharedTransport::PrepareSegment(char* segment) {
  static_assert(sizeof(Header) <= kHeaderBytes);
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
  Header* header = new (segment) Header;
  header->calls.store(0);
  header->left.store(false);
}

SharedTransport::SharedTransport(int rank, SharedSegments segments,
                                 std::function<void()> idle)
    : Transport(rank, static_cast<int>(segments.by_rank.size())),
      segments_(std::move(segments)),
      idle_(std::move(idle)) {
  CHECK_EQ(segments_.slot_bytes % kPieceAlignment, 0);
}

SharedTransport::~SharedTransport() {
  header(rank())->left.store(true, std::memory_order_release);
}

SharedTransport::Header* SharedTransport::header(int rank) const {
  return std::launder(reinterpret_cast<Header*>(segments_.by_rank[rank]));
}

char* SharedTransport::slot(int rank) const {
  const int64_t parity = static_cast<int64_t>(calls_ % 2);
  return segments_.by_rank[rank] + kHeaderBytes + parity * segments_.slot_bytes;
}

void SharedTransport::WaitFor(int peer, uint64_t calls) const {
  const Header* theirs = header(peer);
  const auto arrived = [theirs, calls] {
    return theirs->calls.load(std::memory_order_acquire) >= calls;
  };
  // A peer on another core comes within microseconds; one that shares this
  // core needs it; one that is far behind should not be slowed by our waiting.
  constexpr int kSpins = 300;
  constexpr int kYields = 10000;
  for (int turn = 0; !arrived(); ++turn) {
    if (turn < kSpins) {
      Pause();
    } else if (turn < kSpins + kYields) {
      sched_yield();
    } else {
      usleep(50);
    }
    if (turn % 64 != 63) continue;
    if (idle_) idle_();
    if (theirs->left.load(std::memory_order_acquire) && !arrived()) {
      LOG(FATAL) << "rank " << peer << " of a group of " << size()
                 << " has left while rank " << rank() << " waits for it";
    }
  }
}

void SharedTransport::Meet() {
  header(rank())->calls.store(calls_, std::memory_order_release);
  for (int step = 1; step < size(); ++step) {
    WaitFor((rank() + step) % size(), calls_);
  }
}

int64_t SharedTransport::max_exchange_bytes() const {
  return segments_.slot_bytes - kPieceAlignment * size();
}

std::vector<const void*> SharedTransport::Exchange(
    absl::Span<const void* const> send, absl::Span<const int64_t> bytes) {
  ++calls_;
  int64_t offset = 0;
  int64_t my_offset = 0;
  for (int to = 0; to < size(); ++to) {
    if (to == rank()) {
      my_offset = offset;
    } else {
      Copy(slot(rank()) + offset, send[to], bytes[to]);
    }
    offset += AlignUp(bytes[to]);
  }
  DCHECK_LE(offset, segments_.slot_bytes);
  Meet();
  std::vector<const void*> received(size());
  for (int from = 0; from < size(); ++from) {
    received[from] = from == rank() ? send[from] : slot(from) + my_offset;
  }
  return received;
}

void SharedTransport::AllGather(void* data, absl::Span<const int64_t> bytes) {
  const int64_t longest = *std::max_element(bytes.begin(), bytes.end());
  const int64_t step = segments_.slot_bytes;
  for (int64_t begin = 0; begin < longest; begin += step) {
    ++calls_;
    const auto part = [&](int from) {
      return std::clamp<int64_t>(bytes[from] - begin, 0, step);
    };
    char* piece = static_cast<char*>(data) + begin;
    for (int from = 0; from < rank(); ++from) piece += bytes[from];
    Copy(slot(rank()), piece, part(rank()));
    Meet();
    piece = static_cast<char*>(data) + begin;
    for (int from = 0; from < size(); piece += bytes[from], ++from) {
      if (from != rank()) Copy(piece, slot(from), part(from));
    }
  }
}

void SharedTransport::Broadcast(void* data, int64_t bytes, int root) {
  const int64_t step = segments_.slot_bytes;
  for (int64_t begin = 0; begin < bytes; begin += step) {
    ++calls_;
    char* piece = static_cast<char*>(data) + begin;
    const int64_t part = std::min(step, bytes - begin);
    if (rank() == root) Copy(slot(root), piece, part);
    Meet();
    if (rank() != root) Copy(piece, slot(root), part);
  }
}

void SharedTransport::Barrier() {
  ++calls_;
  Meet();
}

std::vector<int> SharedTransport::Missing() const {
  const uint64_t mine = header(rank())->calls.load(std::memory_order_acquire);
  std::vector<int> missing;
  for (int peer = 0; peer < size(); ++peer) {
    if (header(peer)->calls.load(std::memory_order_acquire) < mine) {
      missing.push_back(peer);
    }
  }
  return missing;
}

}  // namespace lorica
