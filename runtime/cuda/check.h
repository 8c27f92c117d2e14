// What a failing call of the CUDA libraries means: the device is lost, and the
// rank with it.
#ifndef LORICA_RUNTIME_CUDA_CHECK_H_
#define LORICA_RUNTIME_CUDA_CHECK_H_

#include <cuda_runtime_api.h>

#include "runtime/check.h"

#define CUDA_CHECK(call)                                         \
  do {                                                           \
    const cudaError_t cuda_error = (call);                       \
    CHECK(cuda_error == cudaSuccess)                             \
        << #call << ": " << cudaGetErrorName(cuda_error) << ", " \
        << cudaGetErrorString(cuda_error);                       \
  } while (false)

#endif  // LORICA_RUNTIME_CUDA_CHECK_H_
