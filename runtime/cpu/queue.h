// What the CPU's kernels keep from call to call: threads, scratch memory and
// compiled products.
#ifndef LORICA_RUNTIME_CPU_QUEUE_H_
#define LORICA_RUNTIME_CPU_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "runtime/backend.h"
#include "runtime/cpu/matmul.h"
#include "runtime/device.h"

namespace lorica::cpu {

// Memory that grows to the largest request and stays, so that a step in its
// steady state allocates nothing. Contents do not survive the next request.
class Scratch {
 public:
  template <typename T>
  T* Get(int64_t count) {
    return static_cast<T*>(Bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  void* Bytes(size_t bytes);

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::unique_ptr<void, Free> data_;
  size_t size_ = 0;
};

// Who uses a scratch block. Entries that call each other must differ here.
enum class ScratchUse : uint8_t {
  kOneDnn,
  kWideA,  // Operands of a product, widened to F32 or packed.
  kWideB,
  kWideBias,
  kWideY,  // A product's F32 result on its way to BF16.
  kSum,    // A sum of products before it is rounded.
  kLogits,
  kPartials,   // Terms of a reduction, one per block or range.
  kOperands,   // Attention tiles packed for the products.
  kAttention,  // Attention tiles of each thread.
  kPanels,     // Packed operands of each thread's dense products.
  kCount,
};

// Whether products of BF16 arrays use the processor's BF16 instructions, or
// are widened to F32 first.
enum class Bf16Products : uint8_t { kNative, kWidened };

struct Queue : lorica::Queue {
  explicit Queue(const CpuOptions& options);

  template <typename T>
  T* ScratchFor(ScratchUse use, int64_t count) {
    return scratch[static_cast<size_t>(use)].Get<T>(count);
  }

  int threads;
  Bf16Products bf16_products;
  Scratch scratch[static_cast<size_t>(ScratchUse::kCount)];
  MatmulCache matmuls;
};

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_QUEUE_H_
