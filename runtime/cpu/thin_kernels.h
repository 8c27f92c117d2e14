// The arithmetic of thin_products.h on ranges of rows or columns, compiled for
// AVX-512 BF16 (thin_kernels_bf16.cc). Operands packed for it are in pairs of
// BF16 elements that a product multiplies and adds together.
#ifndef LORICA_RUNTIME_CPU_THIN_KERNELS_H_
#define LORICA_RUNTIME_CPU_THIN_KERNELS_H_

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/shape.h"

namespace lorica::cpu {

// y [T, S] = x w for some rows. Where S is at most 8, w holds two pairs of its
// rows side by side: lane 2 s + p is pair p of column s.
struct ThinProjection {
  View x;             // [T, K] BF16
  const uint32_t* w;  // [steps, lanes], zero where padded.
  int64_t lanes;      // 16 or 32.
  int64_t step;       // Rows of w in a step: 4 where S is at most 8, else 2.
  float scale;
  View y;  // [T, S] BF16 or F32.
};
void ProjectRows(const ThinProjection& projection, Range rows);

// y [S, N] or its transpose += scale u' x for some columns of x.
struct ThinGradient {
  const uint32_t* u;  // [S rounded up to kGradientRows, pairs of rows of x]
  int64_t pairs;
  View x;  // [T, N] BF16
  float scale;
  int64_t rows;  // S
  float* y;      // F32; element (s, n) at s row_step + n col_step.
  int64_t row_step;
  int64_t col_step;
};
inline constexpr int64_t kGradientRows = 8;
inline constexpr int64_t kGradientCols = 32;
void AddGradientCols(const ThinGradient& gradient, Range cols);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_THIN_KERNELS_H_
