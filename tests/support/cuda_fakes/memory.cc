#include "tests/support/cuda_fakes/memory.h"

#include <algorithm>
#include <utility>

#include "tests/support/cuda_fakes/registrations.h"
#include "tests/support/cuda_sim/simulator.h"

namespace lorica::cuda_fakes {
namespace {

// Accesses of kernels are told apart by so many bytes: allocations are aligned
// to more.
constexpr size_t kGranule = 64;
constexpr uint8_t kReadBit = 1;
constexpr uint8_t kWriteBit = 2;

uintptr_t Address(const void* data) {
  return reinterpret_cast<uintptr_t>(data);
}

}  // namespace

DeviceMemory& DeviceMemory::Get() {
  static DeviceMemory* const memory = new DeviceMemory();
  return *memory;
}

void DeviceMemory::Reset() {
  for (const auto& [begin, block] : blocks_) {
    cuda_sim::Free(reinterpret_cast<void*>(begin));
  }
  blocks_.clear();
  recent_ = nullptr;
  bytes_ = 0;
  pool_bytes_ = 0;
  peak_pool_bytes_ = 0;
  allocations_ = 0;
}

void* DeviceMemory::Allocate(size_t bytes, Source source) {
  if (bytes_ + bytes > Timeline::Get().settings().memory_bytes) return nullptr;
  void* data = cuda_sim::Allocate(bytes);
  const uintptr_t begin = Address(data);
  Block& block = blocks_[begin];
  block.begin = begin;
  block.bytes = bytes;
  block.source = source;
  block.pieces[begin];
  bytes_ += bytes;
  if (source == Source::kPool) pool_bytes_ += bytes;
  peak_pool_bytes_ = std::max(peak_pool_bytes_, pool_bytes_);
  ++allocations_;
  return data;
}

void DeviceMemory::Free(void* data) {
  const auto found = blocks_.find(Address(data));
  if (found == blocks_.end()) return;
  Registrations::Get().CheckFree({data, found->second.bytes});
  bytes_ -= found->second.bytes;
  if (found->second.source == Source::kPool) {
    pool_bytes_ -= found->second.bytes;
  }
  blocks_.erase(found);
  recent_ = nullptr;
  cuda_sim::Free(data);
}

const DeviceMemory::Block* DeviceMemory::Find(const void* data) const {
  auto next = blocks_.upper_bound(Address(data));
  if (next == blocks_.begin()) return nullptr;
  const Block& block = std::prev(next)->second;
  return Address(data) < block.begin + block.bytes ? &block : nullptr;
}

bool DeviceMemory::Holds(const Region& region) const {
  const Block* block = Find(region.data);
  return block != nullptr &&
         Contains({reinterpret_cast<void*>(block->begin), block->bytes},
                  region);
}

void DeviceMemory::CheckUnused(const std::string& what,
                               const Region& region) const {
  const Op* pending = Timeline::Get().PendingUse(region);
  if (pending != nullptr) {
    Timeline::Get().Report(what + " before '" + pending->name + "' has run");
  }
  const Block* block = Find(region.data);
  if (block == nullptr) return;
  const Clock& seen = Timeline::Get().seen();
  const auto check = [&](const User& user) {
    if (seen.Knows(user.stamp)) return;
    Timeline::Get().Report(what + " of what '" + user.name +
                           "' uses, and nobody has waited for it");
  };
  for (const auto& [begin, piece] : block->pieces) {
    check(piece.writer);
    for (const User& reader : piece.readers) check(reader);
  }
}

Region DeviceMemory::WholeAt(const void* data) const {
  const auto found = blocks_.find(Address(data));
  if (found == blocks_.end()) return {nullptr, 0};
  return {data, found->second.bytes};
}

// A piece begins at `at` afterwards.
std::map<uintptr_t, DeviceMemory::Piece>::iterator DeviceMemory::Cut(
    Block* block, uintptr_t at) {
  const auto next = block->pieces.upper_bound(at);
  const auto here = std::prev(next);
  if (here->first == at) return here;
  return block->pieces.emplace_hint(next, at, here->second);
}

void DeviceMemory::Check(const Op& op, const Piece& piece, bool write) {
  if (!op.clock.Knows(piece.writer.stamp)) {
    Timeline::Get().Report(
        "'" + op.name + "' " + (write ? "overwrites" : "reads") + " what '" +
        piece.writer.name + "' writes, and nothing orders them");
  }
  if (!write) return;
  for (const User& reader : piece.readers) {
    if (op.clock.Knows(reader.stamp)) continue;
    Timeline::Get().Report("'" + op.name + "' overwrites what '" + reader.name +
                           "' reads, and nothing orders them");
  }
}

bool DeviceMemory::Touch(const Op& op, Region region, bool write) {
  if (region.bytes == 0) return true;
  Block* block = const_cast<Block*>(Find(region.data));
  const uintptr_t begin = Address(region.data);
  const uintptr_t end = begin + region.bytes;
  if (block == nullptr || end > block->begin + block->bytes) {
    Timeline::Get().Report("'" + op.name +
                           "' touches memory outside any live allocation");
    return false;
  }
  if (end < block->begin + block->bytes) Cut(block, end);
  for (auto piece = Cut(block, begin);
       piece != block->pieces.end() && piece->first < end;) {
    Check(op, piece->second, write);
    if (write) {
      piece->second = {.writer = {op.stamp, op.name}, .readers = {}};
      // A write makes one piece of all it covers.
      piece =
          piece->first == begin ? std::next(piece) : block->pieces.erase(piece);
      continue;
    }
    std::vector<User>& readers = piece->second.readers;
    std::erase_if(readers, [&](const User& reader) {
      return reader.stamp.lane == op.stamp.lane;
    });
    readers.push_back({op.stamp, op.name});
    ++piece;
  }
  return true;
}

bool DeviceMemory::Touch(const Op& op) {
  bool there = true;
  for (const Region& region : op.reads) there &= Touch(op, region, false);
  for (const Region& region : op.writes) there &= Touch(op, region, true);
  return there;
}

void DeviceMemory::BeginKernel() { accessed_.clear(); }

void DeviceMemory::Access(const void* data, size_t bytes, bool write) {
  const uintptr_t begin = Address(data);
  if (recent_ == nullptr || begin < recent_->begin ||
      begin >= recent_->begin + recent_->bytes) {
    recent_ = const_cast<Block*>(Find(data));
    if (recent_ == nullptr) return;  // The simulator reports it.
  }
  if (recent_->accessed.empty()) {
    recent_->accessed.resize((recent_->bytes + kGranule - 1) / kGranule, 0);
    accessed_.push_back(recent_);
  }
  const size_t first = (begin - recent_->begin) / kGranule;
  const size_t last = (begin + bytes - 1 - recent_->begin) / kGranule;
  for (size_t i = first; i <= last && i < recent_->accessed.size(); ++i) {
    recent_->accessed[i] |= write ? kWriteBit : kReadBit;
  }
}

void DeviceMemory::EndKernelIn(const Op& op, Block* block, bool write) {
  const uint8_t bit = write ? kWriteBit : kReadBit;
  const std::vector<uint8_t>& bits = block->accessed;
  for (size_t i = 0; i < bits.size(); ++i) {
    if ((bits[i] & bit) == 0) continue;
    size_t end = i;
    while (end < bits.size() && (bits[end] & bit) != 0) ++end;
    const size_t from = i * kGranule;
    const size_t to = std::min(end * kGranule, block->bytes);
    Touch(op, {reinterpret_cast<void*>(block->begin + from), to - from}, write);
    i = end;
  }
}

void DeviceMemory::EndKernel(const Op& op) {
  for (Block* block : accessed_) {
    EndKernelIn(op, block, false);
    EndKernelIn(op, block, true);
    block->accessed.clear();
  }
  accessed_.clear();
}

}  // namespace lorica::cuda_fakes
