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
//   y [m, n] = a b,           n thin: activations projected to the rank,
//   y [m, n] += a b, BF16,    k thin: the adapter's share of a result, or
//   y [m, n] += scale a' b, F32, m or n thin: the gradient of a factor.
bool IsThin(const MatmulArgs& args);
void ThinMatmul(Queue* queue, const MatmulArgs& args);

// y = base + u v rounded once: u [T, S] and v [S, N] BF16 with S at most
// kMaxThin, base F32 or BF16, y BF16. base and y may be the same.
void AddLowRank(Queue* queue, const View& base, const View& u, const View& v,
                const View& y);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_THIN_PRODUCTS_H_
