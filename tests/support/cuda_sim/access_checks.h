// Shadow memory: who touched each two bytes of device and shared memory last.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_ACCESS_CHECKS_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_ACCESS_CHECKS_H_

#include <cstddef>
#include <cstdint>

#include "tests/support/cuda_sim/simulator.h"

namespace lorica::cuda_sim {

// Before any allocation.
void TurnOnAccessChecks();

// An access of the running thread that the compiler's hooks did not see.
void NoteAccess(const void* data, size_t bytes, Access access);

}  // namespace lorica::cuda_sim

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_ACCESS_CHECKS_H_
