// Products of BF16 matrices with one short side, as adapters of low rank bring
// them, for processors with AVX-512 BF16. With every linear layer adapted they
// are 8 % of a step in oneDNN and half of that here.
#ifndef LORICA_RUNTIME_CPU_THIN_PRODUCTS_H_
#define LORICA_RUNTIME_CPU_THIN_PRODUCTS_H_

#include <cstdint>

#include "runtime/backend.h"

namespace lorica::cpu {

struct Queue;

inline constexpr int64_t kMaxThin = 32;

// Whether ThinMatmul computes this product: BF16 operands and
//   y [m, n] = a b,           n thin: activations projected to the rank, or
//   y [m, n] += scale a' b, F32, m or n thin: the gradient of a factor.
// The third of an adapter, k thin, is a term of a sum (dense_products.h).
bool IsThin(const MatmulArgs& args);
void ThinMatmul(Queue* queue, const MatmulArgs& args);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_THIN_PRODUCTS_H_
