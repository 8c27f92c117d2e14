// Small kernels, most of them wrong in one way each, to show that the simulator
// tells.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_PLANTED_BUGS_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_PLANTED_BUGS_H_

#include "tests/support/cuda_sim/simulator.h"

namespace lorica::cuda_sim {

// Threads of a block of these kernels, and elements of their array.
inline constexpr int kBugThreads = 128;

// What a kernel does to x [kBugThreads] and how it is launched.
struct PlantedBug {
  const char* name;
  void (*kernel)(float* x);
  // Part of what the simulator reports; empty of kernels that are right.
  const char* report;
  unsigned blocks = 1;
};

extern const PlantedBug kPlantedBugs[];
extern const int kNumPlantedBugs;

// Runs it on `x` of the simulator's memory.
void RunPlantedBug(const PlantedBug& bug, float* x);

}  // namespace lorica::cuda_sim

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_PLANTED_BUGS_H_
