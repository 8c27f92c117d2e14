#include "tests/support/cuda_sim/access_checks.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "runtime/check.h"
#include "tests/support/cuda_sim/block.h"

// The program's own writable data, where arrays in shared memory lie.
extern "C" {
extern char __data_start;
extern char _end;
extern char __executable_start;
}

namespace lorica::cuda_sim {
namespace {

constexpr size_t kArenaBytes = size_t{1} << 30;
constexpr size_t kUnit = 2;  // Bytes a cell stands for.

// One side's last access. Of several readers since the last write, the last is
// kept, and whether the others were of its warp.
struct Touch {
  uint32_t block = 0;
  uint16_t thread = 0;
  uint16_t block_epoch = 0;
  uint16_t warp_epoch = 0;
  bool present = false;
  enum class Others : uint8_t { kNone, kSameWarp, kAny } others = Others::kNone;
};

struct Cell {
  uint32_t stamp = 0;    // Of the launch or, in shared memory, of the block.
  bool written = false;  // Ever, in device memory.
  Touch read;
  Touch write;
};

template <typename T>
T* Reserve(size_t count) {
  void* data = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(data != MAP_FAILED);
  return static_cast<T*>(data);
}

struct Shadow {
  std::mutex mutex;
  char* arena = nullptr;  // Null while access checks are off.
  size_t used = 0;
  Cell* device = nullptr;
  Cell* shared = nullptr;
  std::map<uintptr_t, size_t> blocks;
  AccessObserver observer = nullptr;
};

// Never destroyed; there before the program's own constructors run.
Shadow& TheShadow() {
  static auto& shadow = *new Shadow;
  return shadow;
}

}  // namespace

void TurnOnAccessChecks() {
  Shadow& shadow = TheShadow();
  if (shadow.arena != nullptr) return;
  shadow.device = Reserve<Cell>(kArenaBytes / kUnit);
  const auto image = static_cast<size_t>(&_end - &__data_start);
  shadow.shared = Reserve<Cell>(image / kUnit + 1);
  shadow.arena = Reserve<char>(kArenaBytes);
}

namespace {

uintptr_t Number(const void* data) { return reinterpret_cast<uintptr_t>(data); }

bool SameWarp(uint16_t a, uint16_t b) { return a / 32 == b / 32; }

// Whether a barrier lies between `touch` and now.
bool Ordered(const Touch& touch, const Position& now) {
  if (touch.block != now.block) return false;
  return touch.thread == now.thread || touch.block_epoch != now.block_epoch ||
         (SameWarp(touch.thread, now.thread) &&
          touch.warp_epoch != now.warp_epoch);
}

// Whether a barrier lies between every reader and now.
bool AllOrdered(const Touch& read, const Position& now) {
  if (!Ordered(read, now)) return false;
  if (read.others == Touch::Others::kNone) return true;
  if (read.block != now.block) return false;
  if (read.block_epoch != now.block_epoch) return true;
  return read.others == Touch::Others::kSameWarp &&
         SameWarp(read.thread, now.thread) && read.warp_epoch != now.warp_epoch;
}

Touch::Others OthersAfter(const Touch& read, const Position& now) {
  if (!read.present) return Touch::Others::kNone;
  if (read.block != now.block) return Touch::Others::kAny;
  if (read.block_epoch != now.block_epoch) return Touch::Others::kNone;
  if (read.thread == now.thread) return read.others;
  return SameWarp(read.thread, now.thread) && read.others != Touch::Others::kAny
             ? Touch::Others::kSameWarp
             : Touch::Others::kAny;
}

struct Happening {
  const void* data;
  size_t bytes;
  Access access;
  const char* memory;  // "device" or "shared".
};

void Complain(const char* what, const Happening& it) {
  std::ostringstream text;
  text << what << ": " << (it.access == Access::kWrite ? "write" : "read")
       << " of " << it.bytes << " bytes of " << it.memory << " memory at "
       << it.data;
  Report(text.str());
}

// Enters the access in the cell; false if it races with an earlier one.
bool Enter(Cell* cell, uint32_t stamp, const Position& now, Access access) {
  if (cell->stamp != stamp) {
    cell->stamp = stamp;
    cell->read = {};
    cell->write = {};
  }
  bool good = !cell->write.present || Ordered(cell->write, now);
  Touch touch = {.block = now.block,
                 .thread = now.thread,
                 .block_epoch = now.block_epoch,
                 .warp_epoch = now.warp_epoch,
                 .present = true};
  if (access == Access::kRead) {
    touch.others = OthersAfter(cell->read, now);
    cell->read = touch;
  } else {
    good = good && (!cell->read.present || AllOrdered(cell->read, now));
    cell->write = touch;
    cell->written = true;
  }
  return good;
}

// Calls body(cell) for the cells of a range until it returns false.
template <typename Body>
void ForCells(Cell* cells, uintptr_t base, const Happening& it,
              const Body& body) {
  const uintptr_t first = (Number(it.data) - base) / kUnit;
  const uintptr_t last = (Number(it.data) - base + it.bytes - 1) / kUnit;
  for (uintptr_t i = first; i <= last; ++i) {
    if (!body(&cells[i])) return;
  }
}

void CheckDevice(const Happening& it, const Position& now) {
  Shadow& shadow = TheShadow();
  const uintptr_t at = Number(it.data);
  auto block = shadow.blocks.upper_bound(at);
  if (block == shadow.blocks.begin() ||
      (--block, at + it.bytes > block->first + block->second)) {
    return Complain("out of bounds", it);
  }
  const size_t alignment = std::min<size_t>(it.bytes & -it.bytes, 16);
  if (at % alignment != 0) Complain("misaligned", it);
  if (shadow.observer != nullptr) shadow.observer(it.data, it.bytes, it.access);
  bool unwritten = false;
  bool raced = false;
  ForCells(shadow.device, Number(shadow.arena), it, [&](Cell* cell) {
    if (it.access == Access::kRead && !cell->written) unwritten = true;
    raced = !Enter(cell, now.launch, now, it.access) || raced;
    return true;
  });
  if (unwritten) Complain("never written", it);
  if (raced) Complain("unordered", it);
}

void CheckShared(const Happening& it, const Position& now) {
  Shadow& shadow = TheShadow();
  bool unwritten = false;
  bool raced = false;
  ForCells(shadow.shared, Number(&__data_start), it, [&](Cell* cell) {
    const bool known = cell->stamp == now.block_number && cell->write.present;
    if (it.access == Access::kRead && !known) unwritten = true;
    Position in_block = now;
    in_block.block = 0;
    raced = !Enter(cell, now.block_number, in_block, it.access) || raced;
    return true;
  });
  if (unwritten) Complain("never written", it);
  if (raced) Complain("unordered", it);
}

}  // namespace

void NoteAccess(const void* data, size_t bytes, Access access) {
  Shadow& shadow = TheShadow();
  Position now;
  if (shadow.arena == nullptr || !GetPosition(&now)) return;
  Happening it = {data, bytes, access, "device"};
  const uintptr_t at = Number(data);
  if (Number(shadow.arena) <= at && at < Number(shadow.arena) + kArenaBytes) {
    return CheckDevice(it, now);
  }
  it.memory = "shared";
  switch (PlaceOf(data, bytes)) {
    case Place::kOwnStack:
      return;
    case Place::kArguments:
      if (access == Access::kWrite) Complain("argument written", it);
      return;
    case Place::kPastDynamicShared:
      return Complain("out of bounds", it);
    case Place::kDynamicShared:
      return CheckShared(it, now);
    case Place::kElsewhere:
      break;
  }
  if (Number(&__data_start) <= at && at < Number(&_end)) {
    return CheckShared(it, now);
  }
  const bool constant =
      Number(&__executable_start) <= at && at < Number(&__data_start);
  if (constant && access == Access::kRead) return;
  it.memory = "the host's";
  Complain("not the device's", it);
}

bool ChecksAccesses() { return TheShadow().arena != nullptr; }

void SetAccessObserver(AccessObserver observer) {
  TheShadow().observer = observer;
}

// The arena is not used again, so that a late access to a freed block shows.
void* Allocate(size_t bytes) {
  Shadow& shadow = TheShadow();
  const size_t rounded = (bytes + 255) / 256 * 256;
  void* data;
  if (shadow.arena == nullptr) {
    CHECK_EQ(posix_memalign(&data, 256, std::max<size_t>(bytes, 1)), 0);
  } else {
    const std::lock_guard<std::mutex> lock(shadow.mutex);
    CHECK_LE(shadow.used + rounded + 256, kArenaBytes);
    data = shadow.arena + shadow.used;
    shadow.used += rounded + 256;
    shadow.blocks[Number(data)] = bytes;
  }
  std::memset(data, 0xff, bytes);
  return data;
}

void Free(void* data) {
  Shadow& shadow = TheShadow();
  if (shadow.arena == nullptr) {
    std::free(data);
    return;
  }
  const std::lock_guard<std::mutex> lock(shadow.mutex);
  CHECK_EQ(shadow.blocks.erase(Number(data)), size_t{1});
}

void MarkWritten(const void* data, size_t bytes) {
  Shadow& shadow = TheShadow();
  if (shadow.arena == nullptr || bytes == 0) return;
  ForCells(shadow.device, Number(shadow.arena),
           {data, bytes, Access::kWrite, ""}, [](Cell* cell) {
             cell->written = true;
             return true;
           });
}

}  // namespace lorica::cuda_sim

// What -fsanitize=thread makes a kernel call at each load and store. The
// sanitizer's own library is not linked.
extern "C" {

#define LORICA_ACCESS_HOOKS(size)                                              \
  void __tsan_read##size(void* data) {                                         \
    lorica::cuda_sim::NoteAccess(data, size, lorica::cuda_sim::Access::kRead); \
  }                                                                            \
  void __tsan_write##size(void* data) {                                        \
    lorica::cuda_sim::NoteAccess(data, size,                                   \
                                 lorica::cuda_sim::Access::kWrite);            \
  }                                                                            \
  void __tsan_unaligned_read##size(void* data) { __tsan_read##size(data); }    \
  void __tsan_unaligned_write##size(void* data) { __tsan_write##size(data); }

LORICA_ACCESS_HOOKS(1)
LORICA_ACCESS_HOOKS(2)
LORICA_ACCESS_HOOKS(4)
LORICA_ACCESS_HOOKS(8)
LORICA_ACCESS_HOOKS(16)

void __tsan_read_range(void* data, unsigned long bytes) {
  lorica::cuda_sim::NoteAccess(data, bytes, lorica::cuda_sim::Access::kRead);
}
void __tsan_write_range(void* data, unsigned long bytes) {
  lorica::cuda_sim::NoteAccess(data, bytes, lorica::cuda_sim::Access::kWrite);
}
// Called before main by each instrumented object.
void __tsan_init() { lorica::cuda_sim::TurnOnAccessChecks(); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// Counts of references in the launch functions; the order is a number of the
// C++ memory model, of which the strongest does for all.
int __tsan_atomic32_fetch_add(volatile int* data, int by, int) {
  return __atomic_fetch_add(data, by, __ATOMIC_SEQ_CST);
}

}  // extern "C"
