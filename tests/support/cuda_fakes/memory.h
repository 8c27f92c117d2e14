// Device memory of the fakes: who touched it last, and whether the next may.
#ifndef LORICA_TESTS_SUPPORT_CUDA_FAKES_MEMORY_H_
#define LORICA_TESTS_SUPPORT_CUDA_FAKES_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/cuda_fakes/timeline.h"

namespace lorica::cuda_fakes {

// Under the Timeline's lock.
class DeviceMemory {
 public:
  static DeviceMemory& Get();

  void Reset();
  size_t bytes() const { return bytes_; }
  // Of what came from the runtime's pool.
  size_t pool_bytes() const { return pool_bytes_; }
  size_t peak_pool_bytes() const { return peak_pool_bytes_; }
  int64_t allocations() const { return allocations_; }

  enum class Source : uint8_t { kPool, kLibrary };
  // Null where the settings' memory is out.
  void* Allocate(size_t bytes, Source source);
  void Free(void* data);
  // Whether one live allocation holds the region.
  bool Holds(const Region& region) const;
  // Reports, as a mistake of `what`, uses of the region that the calling thread
  // does not know to be over.
  void CheckUnused(const std::string& what, const Region& region) const;
  // The whole allocation that begins at `data`; empty if there is none.
  Region WholeAt(const void* data) const;

  // Checks what the operation reads and writes, and remembers it. False if it
  // must not run: some of it is not there.
  bool Touch(const Op& op);

  // Accesses of a kernel that runs now, gathered until EndKernel.
  void BeginKernel();
  void Access(const void* data, size_t bytes, bool write);
  void EndKernel(const Op& op);

 private:
  struct User {
    Stamp stamp;
    std::string name;
  };
  // Bytes with one history, from its key to the next one's.
  struct Piece {
    User writer;
    std::vector<User> readers;  // At most one a stream, its latest.
  };
  struct Block {
    uintptr_t begin;
    size_t bytes;
    Source source;
    std::map<uintptr_t, Piece> pieces;
    std::vector<uint8_t> accessed;  // Bits of a kernel, a granule each.
  };

  const Block* Find(const void* data) const;
  static std::map<uintptr_t, Piece>::iterator Cut(Block* block, uintptr_t at);
  static void Check(const Op& op, const Piece& piece, bool write);
  bool Touch(const Op& op, Region region, bool write);
  void EndKernelIn(const Op& op, Block* block, bool write);

  std::map<uintptr_t, Block> blocks_;
  std::vector<Block*> accessed_;  // By the kernel that runs.
  Block* recent_ = nullptr;
  size_t bytes_ = 0;
  size_t pool_bytes_ = 0;
  size_t peak_pool_bytes_ = 0;
  int64_t allocations_ = 0;
};

}  // namespace lorica::cuda_fakes

#endif  // LORICA_TESTS_SUPPORT_CUDA_FAKES_MEMORY_H_
