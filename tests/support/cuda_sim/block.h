// The block that is running: what its threads call, by way of the names that
// target/cuda_target.h gives to it.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_BLOCK_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_BLOCK_H_

#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace lorica::cuda_sim {

// Constant to a thread, as a function runs on one thread to its end.
[[gnu::const]] uint3 ThreadIndex();
[[gnu::const]] uint3 BlockIndex();
[[gnu::const]] uint3 BlockExtent();
[[gnu::const]] uint3 GridExtent();
[[gnu::const]] unsigned char* SharedBytes();
[[gnu::const]] int Lane();

// A place in a kernel's source.
struct Site {
  const char* file;
  int line;
};

void SyncThreads(Site site);
// The lanes of `mask` wait for each other, and see each other's writes.
void SyncWarp(uint32_t mask, Site site);

// Sixteen words that a lane shows to the others.
struct alignas(16) LaneWords {
  uint32_t words[16];
};
// Shows `mine` to the lanes of `mask` and returns what the 32 lanes show, valid
// until the next exchange. Does not order other memory.
const LaneWords* Exchange(uint32_t mask, const LaneWords& mine, Site site);
// One lane's words of such an exchange.
void ReadLane(const LaneWords* shown, uint32_t mask, int lane, void* to,
              size_t bytes);

// cuda_target.h tells what these do.
void CopyAsync16(void* shared, const void* global, int bytes);
void CommitCopies();
void WaitForCopies(int groups);
void MmaBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
             Site site);

// Notes something wrong about the running kernel.
void Report(const std::string& text);

// Who runs, for the access checks.
struct Position {
  uint32_t launch;        // Counts from 1.
  uint32_t block;         // In the grid.
  uint32_t block_number;  // Among all blocks ever run.
  uint16_t thread;        // In the block.
  uint16_t block_epoch;   // Barriers of the block passed.
  uint16_t warp_epoch;    // Of the warp.
};
// False where no thread of a kernel is running.
bool GetPosition(Position* position);

// What an address is to the running thread.
enum class Place : uint8_t {
  kDynamicShared,      // Within the bytes asked for.
  kPastDynamicShared,  // Of the same array, beyond them.
  kOwnStack,
  kArguments,
  kElsewhere,
};
Place PlaceOf(const void* data, size_t bytes);

}  // namespace lorica::cuda_sim

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_BLOCK_H_
