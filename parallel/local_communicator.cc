#include "parallel/local_communicator.h"

#include <cstdlib>
#include <utility>

#include "parallel/shared_transport.h"
#include "runtime/check.h"

namespace lorica {
namespace {

SharedSegments Allocate(int ranks, int64_t slot_bytes) {
  const int64_t segment_bytes = SharedTransport::SegmentBytes(slot_bytes);
  char* memory = static_cast<char*>(
      std::aligned_alloc(64, static_cast<size_t>(ranks * segment_bytes)));
  CHECK(memory != nullptr) << "no memory for the segments of " << ranks
                           << " ranks of " << segment_bytes << " bytes each";
  SharedSegments segments;
  segments.slot_bytes = slot_bytes;
  segments.owner = std::shared_ptr<void>(memory, std::free);
  for (int rank = 0; rank < ranks; ++rank) {
    segments.by_rank.push_back(memory + rank * segment_bytes);
    SharedTransport::PrepareSegment(segments.by_rank.back());
  }
  return segments;
}

class LocalTransport : public SharedTransport {
 public:
  LocalTransport(int rank, const SharedSegments& segments)
      : SharedTransport(rank, segments, nullptr),
        slot_bytes_(segments.slot_bytes) {}

  std::unique_ptr<Transport> Split(int color, int key) override;

 private:
  int64_t slot_bytes_;
};

std::unique_ptr<Transport> LocalTransport::Split(int color, int key) {
  struct Member {
    int color;
    int key;
    const SharedSegments* segments;  // Of the leader, from here on.
  };
  std::vector<Member> members(size());
  members[rank()] = {color, key, nullptr};
  const std::vector<int64_t> bytes(size(), sizeof(Member));
  AllGather(members.data(), bytes);
  int place = 0;
  int count = 0;
  int leader = -1;  // The lowest rank of my color, whatever its key.
  for (int peer = 0; peer < size(); ++peer) {
    if (members[peer].color != color) continue;
    if (leader < 0) leader = peer;
    ++count;
    const int their_key = members[peer].key;
    place += their_key < key || (their_key == key && peer < rank());
  }
  SharedSegments mine;
  if (leader == rank()) mine = Allocate(count, slot_bytes_);
  members[rank()].segments = &mine;
  AllGather(members.data(), bytes);
  auto part =
      std::make_unique<LocalTransport>(place, *members[leader].segments);
  Barrier();  // `mine` is read by others until here.
  return part;
}

}  // namespace

std::vector<std::unique_ptr<Communicator>> LocalCommunicators(
    int ranks, const LocalOptions& options) {
  CHECK_GT(ranks, 0);
  const int64_t slot_bytes = options.slot_bytes > 0
                                 ? options.slot_bytes
                                 : SharedTransport::SlotBytes(ranks);
  const SharedSegments segments = Allocate(ranks, slot_bytes);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < ranks; ++rank) {
    communicators.push_back(std::make_unique<Communicator>(
        std::make_unique<LocalTransport>(rank, segments)));
  }
  return communicators;
}

std::unique_ptr<Communicator> LoneCommunicator() {
  return std::move(LocalCommunicators(1)[0]);
}

}  // namespace lorica
