#include "tests/support/cuda_sim/block.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "runtime/check.h"
#include "tests/support/cuda_sim/access_checks.h"
#include "tests/support/cuda_sim/fiber.h"
#include "tests/support/cuda_sim/simulator.h"

extern "C" {
__attribute__((weak)) void __asan_unpoison_memory_region(
    const volatile void* data, size_t size);
__attribute__((weak)) void __asan_poison_memory_region(
    const volatile void* data, size_t size);
}

namespace lorica::cuda_sim {
namespace {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxReports = 16;

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

// Where the lanes of one mask meet. Lanes that leave for their next exchange
// write to the other half of `shown` while the rest still read.
struct WarpBarrier {
  uint32_t mask = 0;
  uint32_t arrived = 0;
  uint32_t meetings = 0;
  LaneWords shown[2][kWarp];
};

struct Warp {
  std::vector<std::unique_ptr<WarpBarrier>> barriers;
  uint16_t epoch = 0;
};

struct Copy {
  void* shared;
  const void* global;
  int bytes;
};

struct Thread {
  Fiber fiber;
  State state = State::kDone;
  int index = 0;
  uint3 position = {};
  const WarpBarrier* barrier = nullptr;
  Site site = {};
  std::vector<std::vector<Copy>> copy_groups;  // The last one is open.
};

// The grid that runs, one at a time.
struct Machine {
  std::mutex mutex;
  const KernelCall* call = nullptr;
  std::vector<std::unique_ptr<Thread>> threads;
  std::array<Warp, kMaxThreads / kWarp> warps;
  int count = 0;
  int alive = 0;
  int arrived = 0;
  Site barrier_site = {};
  uint16_t epoch = 0;
  uint3 block = {};
  uint32_t block_index = 0;
  uint32_t launches = 0;
  uint32_t blocks = 0;
  Order order = Order::kForward;
  std::mt19937 random;
  std::mutex reports_mutex;
  std::vector<std::string> reports;
  Launcher launcher;
};

// The thread that has its turn: null on other threads of the program, and
// before its constructors. The compiler's hooks ask in both.
constinit thread_local Thread* running = nullptr;

// Never destroyed, so that it outlives whoever uses it.
Machine& machine = *new Machine;

alignas(1024) unsigned char shared_memory[kMaxSharedBytes + 4096];

std::string Words(Site site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

uint3 Extent(dim3 extent) { return {extent.x, extent.y, extent.z}; }

Warp& WarpOf(const Thread& thread) {
  return machine.warps[static_cast<size_t>(thread.index / kWarp)];
}

void Wait(State state) {
  running->state = state;
  running->fiber.Yield();
}

// Whoever completes a barrier goes on, or lets others go first.
void PassOn() {
  if (machine.order != Order::kForward) Wait(State::kReady);
}

void ReleaseBlock() {
  for (int i = 0; i < machine.count; ++i) {
    Thread& thread = *machine.threads[static_cast<size_t>(i)];
    if (thread.state == State::kAtBlockBarrier) thread.state = State::kReady;
  }
  machine.arrived = 0;
  ++machine.epoch;
}

WarpBarrier* BarrierFor(uint32_t mask) {
  auto& barriers = WarpOf(*running).barriers;
  for (const auto& barrier : barriers) {
    if (barrier->mask == mask) return barrier.get();
  }
  barriers.push_back(std::make_unique<WarpBarrier>());
  barriers.back()->mask = mask;
  return barriers.back().get();
}

enum class Ordering : uint8_t { kNone, kMemory };

void Meet(WarpBarrier* barrier, Ordering ordering, Site site) {
  Thread* self = running;
  const uint32_t me = uint32_t{1} << (self->index % kWarp);
  if ((barrier->mask & me) == 0) {
    Report("a lane is not in its own mask at " + Words(site));
    return;
  }
  self->site = site;
  barrier->arrived |= me;
  if (barrier->arrived != barrier->mask) {
    self->barrier = barrier;
    Wait(State::kAtWarpBarrier);
    return;
  }
  const int first = self->index / kWarp * kWarp;
  const int end = std::min(first + kWarp, machine.count);
  for (int i = first; i < end; ++i) {
    Thread& other = *machine.threads[static_cast<size_t>(i)];
    if (other.state == State::kAtWarpBarrier && other.barrier == barrier) {
      other.state = State::kReady;
    }
  }
  barrier->arrived = 0;
  ++barrier->meetings;
  if (ordering == Ordering::kMemory) ++WarpOf(*self).epoch;
  PassOn();
}

void Perform(const Copy& copy) {
  NoteAccess(copy.shared, 16, Access::kWrite);
  if (copy.bytes > 0) {
    NoteAccess(copy.global, 16, Access::kRead);
    std::memcpy(copy.shared, copy.global, 16);
  } else {
    std::memset(copy.shared, 0, 16);
  }
}

void RunThread(void* argument) {
  auto* thread = static_cast<Thread*>(argument);
  machine.call->run_thread(machine.call->arguments.get());
  WaitForCopies(0);
  thread->state = State::kDone;
  --machine.alive;
}

// Shared memory holds NaN at first, and is poisoned past the bytes asked for.
void ResetSharedMemory(size_t bytes) {
  if (__asan_unpoison_memory_region != nullptr) {
    __asan_unpoison_memory_region(shared_memory, sizeof shared_memory);
  }
  std::memset(shared_memory, 0xff, bytes);
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(shared_memory + bytes,
                                sizeof shared_memory - bytes);
  }
}

void ResetBlock() {
  const dim3 extent = machine.call->block;
  for (Warp& warp : machine.warps) {
    for (const auto& barrier : warp.barriers) barrier->arrived = 0;
    warp.epoch = 0;
  }
  machine.epoch = 0;
  machine.arrived = 0;
  machine.alive = machine.count;
  ++machine.blocks;
  ResetSharedMemory(machine.call->shared_bytes);
  for (int i = 0; i < machine.count; ++i) {
    Thread& thread = *machine.threads[static_cast<size_t>(i)];
    const auto u = static_cast<unsigned>(i);
    thread.position = {u % extent.x, u / extent.x % extent.y,
                       u / (extent.x * extent.y)};
    thread.index = i;
    thread.state = State::kReady;
    thread.copy_groups.assign(1, {});
    thread.fiber.Reset(RunThread, &thread);
  }
}

void ReportDeadlock() {
  for (int i = 0; i < machine.count; ++i) {
    Thread& thread = *machine.threads[static_cast<size_t>(i)];
    if (thread.state == State::kDone) continue;
    running = &thread;
    Report("thread " + std::to_string(i) + " waits forever at " +
           Words(thread.site));
    running = nullptr;
    return;
  }
}

// Lets every runnable thread have its turn; false if there was none.
bool TakeTurns(const std::vector<int>& order) {
  bool progress = false;
  for (const int i : order) {
    Thread& thread = *machine.threads[static_cast<size_t>(i)];
    while (thread.state == State::kReady) {
      running = &thread;
      thread.fiber.Resume();
      running = nullptr;
      progress = true;
      if (machine.order != Order::kForward) break;
    }
  }
  return progress;
}

void RunBlock() {
  ResetBlock();
  std::vector<int> order(static_cast<size_t>(machine.count));
  std::iota(order.begin(), order.end(), 0);
  if (machine.order == Order::kReverse)
    std::reverse(order.begin(), order.end());
  while (machine.alive > 0) {
    if (machine.order == Order::kRandom) {
      std::shuffle(order.begin(), order.end(), machine.random);
    }
    bool progress = TakeTurns(order);
    // Threads that have ended do not count at a barrier.
    if (machine.alive > 0 && machine.arrived == machine.alive) {
      ReleaseBlock();
      progress = true;
    }
    if (!progress) {
      ReportDeadlock();
      return;
    }
  }
}

}  // namespace

uint3 ThreadIndex() { return running->position; }
uint3 BlockIndex() { return machine.block; }
uint3 BlockExtent() { return Extent(machine.call->block); }
uint3 GridExtent() { return Extent(machine.call->grid); }
unsigned char* SharedBytes() { return shared_memory; }
int Lane() { return running->index % kWarp; }

void SyncThreads(Site site) {
  Thread* self = running;
  self->site = site;
  if (machine.arrived == 0) {
    machine.barrier_site = site;
  } else if (machine.barrier_site.line != site.line ||
             std::strcmp(machine.barrier_site.file, site.file) != 0) {
    Report("threads meet at different barriers, " +
           Words(machine.barrier_site) + " and " + Words(site));
  }
  if (++machine.arrived == machine.alive) {
    ReleaseBlock();
    PassOn();
  } else {
    Wait(State::kAtBlockBarrier);
  }
}

void SyncWarp(uint32_t mask, Site site) {
  Meet(BarrierFor(mask), Ordering::kMemory, site);
}

const LaneWords* Exchange(uint32_t mask, const LaneWords& mine, Site site) {
  WarpBarrier* barrier = BarrierFor(mask);
  LaneWords* shown = barrier->shown[barrier->meetings % 2];
  shown[Lane()] = mine;
  Meet(barrier, Ordering::kNone, site);
  return shown;
}

void ReadLane(const LaneWords* shown, uint32_t mask, int lane, void* to,
              size_t bytes) {
  if ((mask >> lane & 1) == 0) Report("a shuffle reads a lane out of its mask");
  std::memcpy(to, shown[lane].words, bytes);
}

// The write may happen at once or late, so it is noted twice.
void CopyAsync16(void* shared, const void* global, int bytes) {
  const auto misaligned = [](const void* data) {
    return reinterpret_cast<uintptr_t>(data) % 16 != 0;
  };
  if (misaligned(shared) || (bytes > 0 && misaligned(global))) {
    Report("an asynchronous copy is not at a multiple of 16 bytes");
    return;
  }
  const Copy copy = {shared, global, bytes};
  NoteAccess(shared, 16, Access::kWrite);
  if (machine.order == Order::kRandom && machine.random() % 2 == 0) {
    Perform(copy);
  } else {
    running->copy_groups.back().push_back(copy);
  }
}

void CommitCopies() { running->copy_groups.emplace_back(); }

void WaitForCopies(int groups) {
  auto& pending = running->copy_groups;
  const auto open = static_cast<int>(pending.size()) - 1;
  const int done = std::max(0, open - groups);
  for (int i = 0; i < done; ++i) {
    for (const Copy& copy : pending[static_cast<size_t>(i)]) Perform(copy);
  }
  pending.erase(pending.begin(), pending.begin() + done);
}

void Report(const std::string& text) {
  const std::lock_guard<std::mutex> lock(machine.reports_mutex);
  if (machine.reports.size() >= kMaxReports) return;
  std::string where;
  if (running != nullptr) {
    where = " [block " + std::to_string(machine.block_index) + ", thread " +
            std::to_string(running->index) + "]";
  }
  machine.reports.push_back(text + where);
}

bool GetPosition(Position* position) {
  const Thread* thread = running;
  if (thread == nullptr) return false;
  *position = {.launch = machine.launches,
               .block = machine.block_index,
               .block_number = machine.blocks,
               .thread = static_cast<uint16_t>(thread->index),
               .block_epoch = machine.epoch,
               .warp_epoch = WarpOf(*thread).epoch};
  return true;
}

Place PlaceOf(const void* data, size_t bytes) {
  const auto* begin = static_cast<const unsigned char*>(data);
  const auto in = [&](const void* range, size_t size) {
    const auto* first = static_cast<const unsigned char*>(range);
    return first <= begin && begin + bytes <= first + size;
  };
  if (in(shared_memory, machine.call->shared_bytes)) {
    return Place::kDynamicShared;
  }
  if (in(shared_memory, sizeof shared_memory)) return Place::kPastDynamicShared;
  if (running->fiber.OnStack(data, bytes)) return Place::kOwnStack;
  if (in(machine.call->arguments.get(), machine.call->argument_bytes)) {
    return Place::kArguments;
  }
  return Place::kElsewhere;
}

void Run(const KernelCall& call) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  const auto count =
      static_cast<int>(call.block.x * call.block.y * call.block.z);
  CHECK(1 <= count && count <= kMaxThreads) << count << " threads in a block";
  CHECK_LE(call.shared_bytes, kMaxSharedBytes) << "of dynamic shared memory";
  CHECK(call.grid.y <= 65535 && call.grid.z <= 65535) << "blocks of a grid";
  while (static_cast<int>(machine.threads.size()) < count) {
    machine.threads.push_back(std::make_unique<Thread>());
  }
  machine.call = &call;
  machine.count = count;
  machine.block_index = 0;
  ++machine.launches;
  for (unsigned z = 0; z < call.grid.z; ++z) {
    for (unsigned y = 0; y < call.grid.y; ++y) {
      for (unsigned x = 0; x < call.grid.x; ++x) {
        machine.block = {x, y, z};
        RunBlock();
        ++machine.block_index;
      }
    }
  }
  machine.call = nullptr;
}

cudaError_t Submit(cudaStream_t stream, KernelCall call) {
  if (machine.launcher) return machine.launcher(stream, std::move(call));
  Run(call);
  return cudaSuccess;
}

void SetLauncher(Launcher launcher) { machine.launcher = std::move(launcher); }

void SetOrder(Order order, uint32_t seed) {
  machine.order = order;
  machine.random.seed(seed);
}

std::vector<std::string> TakeReports() {
  const std::lock_guard<std::mutex> lock(machine.reports_mutex);
  return std::exchange(machine.reports, {});
}

}  // namespace lorica::cuda_sim
