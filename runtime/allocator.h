// Device memory, handed out in blocks and accounted for.
#ifndef LORICA_RUNTIME_ALLOCATOR_H_
#define LORICA_RUNTIME_ALLOCATOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "runtime/device.h"

namespace lorica {

// Allocate and Release may be called from any thread. Running out of memory is
// fatal and says what was asked for and what is in use.
class Allocator {
 public:
  static constexpr size_t kAlignment = 64;

  Allocator(const Backend* backend, Queue* queue, Allocation allocation);
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  void* Allocate(size_t bytes, Lifetime lifetime);
  // `bytes` and `lifetime` as they were asked for.
  void Release(void* data, size_t bytes, Lifetime lifetime);

  // The requests of some work, in order, and what each was given.
  struct Plan {
    struct Request {
      size_t bytes;
      void* data;
    };
    std::vector<Request> requests;
  };
  // From here to EndPlan, at both of which nothing is handed out: notes the
  // requests in an empty plan; serves those of the same work as before from one
  // that is not empty. A plan stays good as long as the allocator lives.
  void BeginPlan(Plan* plan);
  void EndPlan();

  // Gives the blocks of one kind memory of the caller's, which outlives this:
  // they are cut from it before anything is asked of the backend. Once a kind,
  // before its first block, of a kPool. The same requests in the same order get
  // the same places in it, however much is left behind the last of them.
  void Reserve(Lifetime lifetime, void* data, size_t bytes);
  // How much of that memory, from its begin, was handed out at most.
  size_t reserve_used(Lifetime lifetime) const;

  // Bytes handed out now.
  size_t bytes_in_use() const;
  // Bytes that were asked of the backend and kept.
  size_t slab_bytes() const;

 private:
  struct Slab {
    char* data;
    size_t bytes;
  };

  struct Pool {
    void* TakeFree(size_t bytes);
    void AddFree(char* data, size_t bytes);

    std::vector<Slab> slabs;
    std::map<char*, size_t> free_by_address;
    std::set<std::pair<size_t, char*>> free_by_size;
    // Reserved memory. What lies behind `top` is free and in no list: a request
    // that a free block serves leaves it alone.
    char* reserve = nullptr;
    char* top = nullptr;
    char* end = nullptr;
    char* highest_top = nullptr;
  };

  void* Take(size_t bytes, Lifetime lifetime);
  void AddSlab(size_t bytes, Pool* pool);

  const Backend* backend_;
  Queue* queue_;
  Allocation allocation_;
  mutable std::mutex mutex_;
  std::array<Pool, 2> pools_;  // By lifetime.
  Plan* plan_ = nullptr;
  bool follows_ = false;  // Else notes.
  size_t next_ = 0;       // Of the plan that it follows.
  size_t in_use_ = 0;
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_ALLOCATOR_H_
