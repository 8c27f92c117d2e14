#include <cstdint>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"
#include "runtime/cpu/thin_products.h"
#include "runtime/lora_products.h"

namespace lorica::cpu {
namespace {

struct Products {
  using Queue = cpu::Queue;
  static constexpr AdapterTerm kAdapterTerm = AdapterTerm::kLast;

  static void Matmul(Queue* queue, const MatmulArgs& args) {
    cpu::Matmul(queue, args);
  }
  static void Convert(Queue* queue, const View& x, float scale, const View& y) {
    cpu::Convert(queue, x, scale, y);
  }
  static void Add(Queue* queue, const View& x, const View& y) {
    cpu::Add(queue, x, y);
  }
  static float* SumScratch(Queue* queue, int64_t count) {
    return queue->ScratchFor<float>(ScratchUse::kSum, count);
  }
  static bool AddLowRank(Queue* queue, const View& base, const View& u,
                         const View& v, const View& y) {
    if (y.dtype != DType::kBF16 || u.cols > kMaxThin ||
        queue->bf16_products != Bf16Products::kNative) {
      return false;
    }
    cpu::AddLowRank(queue, base, u, v, y);
    return true;
  }
};

}  // namespace

void LoraForward(Queue* queue, const LoraForwardArgs& args) {
  LoraProducts<Products>::Forward(queue, args);
}

void LoraBackward(Queue* queue, const LoraBackwardArgs& args) {
  LoraProducts<Products>::Backward(queue, args);
}

}  // namespace lorica::cpu
