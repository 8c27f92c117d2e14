#include "runtime/cpu/queue.h"

#include <omp.h>

#include <cstddef>
#include <cstdlib>

#include "runtime/check.h"

namespace lorica::cpu {
namespace {

constexpr size_t kPageBytes = 4096;

}  // namespace

void* Scratch::Bytes(size_t bytes) {
  if (bytes > size_) {
    const size_t rounded = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
    data_.reset();
    data_.reset(std::aligned_alloc(kPageBytes, rounded));
    CHECK(data_ != nullptr) << "out of memory: " << rounded << " scratch bytes";
    size_ = rounded;
  }
  return data_.get();
}

Queue::Queue(const CpuOptions& options)
    : threads(options.threads),
      bf16_products(options.isa == CpuIsa::kBest &&
                            __builtin_cpu_supports("avx512bf16")
                        ? Bf16Products::kNative
                        : Bf16Products::kWidened) {
  CHECK_GE(threads, 1);
  omp_set_num_threads(threads);
}

}  // namespace lorica::cpu
