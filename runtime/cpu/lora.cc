#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/cpu/dense_products.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"
#include "runtime/lora_products.h"

namespace lorica::cpu {
namespace {

struct Products {
  using Queue = cpu::Queue;

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
  static void Sum(Queue* queue, const ProductSum& sum) {
    std::array<ProductTerm, kMaxLinearParts + 1> terms;
    std::copy_n(sum.frozen.begin(), sum.num_frozen, terms.begin());
    int64_t size = sum.num_frozen;
    if (sum.adapter.a.present()) {
      terms[static_cast<size_t>(size++)] = sum.adapter;
    }
    const ArrayView<ProductTerm> all = {terms.data(), size};
    if (IsDense(*queue, sum.form, all)) {
      SumOfProducts(queue, sum.form, all, sum.bias, Update::kAssign, sum.y);
    } else {
      SumApart<Products>(queue, sum);
    }
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
