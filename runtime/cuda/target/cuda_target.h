// What kernels are written against, compiled for GPUs of compute capability
// 8.0 and later. A directory on the include path decides which cuda_target.h a
// .cu file sees: this one is the CUDA compiler's, that of
// tests/support/cuda_sim/target runs the same kernels on the host.
#ifndef LORICA_RUNTIME_CUDA_TARGET_CUDA_TARGET_H_
#define LORICA_RUNTIME_CUDA_TARGET_CUDA_TARGET_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "runtime/cuda/launch.h"

namespace lorica::cuda {

// Dynamic shared memory beyond this must be asked for, kernel by kernel.
inline constexpr size_t kFreeSharedBytes = 48 * 1024;

// Enqueues `kernel`.
template <typename... Params, typename... Args>
void Launch(Queue* queue, const LaunchShape& shape, void (*kernel)(Params...),
            Args... args) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  const void* const address = reinterpret_cast<const void*>(kernel);
  if (shape.shared_bytes > kFreeSharedBytes) {
    CheckLaunch(cudaFuncSetAttribute(
                    address, cudaFuncAttributeMaxDynamicSharedMemorySize,
                    static_cast<int>(shape.shared_bytes)),
                address);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = StreamOf(queue);
  CheckLaunch(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...),
              address);
}

// The block's dynamic shared memory, at a multiple of 16 bytes.
__device__ __forceinline__ unsigned char* DynamicShared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return dynamic_shared;
}

// Starts to copy 16 bytes from global to shared memory, both at multiples of
// 16; of `bytes` = 0 the target becomes zero and the source is not read.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global,
                                            int bytes) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to),
               "l"(global), "r"(bytes)
               : "memory");
}

// Ends the group of copies that this thread has started since the last one.
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// Waits until at most kGroups of this thread's groups are under way. Other
// threads see what was copied after a barrier.
template <int kGroups>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kGroups) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements from shared memory. Lane l gives the
// address of row l % 8 of matrix l / 8; of matrix i it receives in r[i] row
// l / 4, columns 2 (l % 4) and the next.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4],
                                             const void* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

// The same of the transposed matrices: rows 2 (l % 4) and the next of column
// l / 4.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4],
                                                       const void* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(from)
      : "memory");
}

// d [16, 8] += a [16, 16] b [16, 8] by a warp. With g = lane / 4 and
// t = lane % 4, half h of a[r] is element (g + 8 (r % 2), 2 t + h + 8 (r / 2)),
// half h of b[r] is element (2 t + h + 8 r, g) and d[i] is element
// (g + 8 (i / 2), 2 t + i % 2). PTX ISA, mma.m16n8k16.
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4],
                                        uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_TARGET_CUDA_TARGET_H_
