#include "runtime/cuda/lora.h"

#include <cstddef>
#include <cstdint>

#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.h"
#include "runtime/lora_products.h"

namespace lorica::cuda {
namespace {

struct Products {
  using Queue = lorica::Queue;

  static void Matmul(Queue* queue, const MatmulArgs& args) {
    cuda::Matmul(queue, args);
  }
  static void Convert(Queue* queue, const View& x, float scale, const View& y) {
    cuda::Convert(queue, x, scale, y);
  }
  static void Add(Queue* queue, const View& x, const View& y) {
    cuda::Add(queue, x, y);
  }
  static void* SumScratch(Queue* queue, int64_t count) {
    return ScratchFor(queue, ScratchUse::kSum,
                      static_cast<size_t>(count) * sizeof(float));
  }
  static void Sum(Queue* queue, const ProductSum& sum) {
    SumApart<Products>(queue, sum);
  }
};

}  // namespace

void LoraForward(Queue* queue, const LoraForwardArgs& args) {
  LoraProducts<Products>::Forward(queue, args);
}

void LoraBackward(Queue* queue, const LoraBackwardArgs& args) {
  LoraProducts<Products>::Backward(queue, args);
}

}  // namespace lorica::cuda
