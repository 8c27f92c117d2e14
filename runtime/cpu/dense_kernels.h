// The arithmetic of dense_products.h, compiled for AVX-512 BF16
// (dense_kernels_bf16.cc).
//
// A panel holds kPanelCols columns of the right operands of a sum, one operand
// after the other: word (pair, column) is the two elements of that column that
// a product multiplies and adds together. It is packed once and read by every
// row of the left operands.
#ifndef LORICA_RUNTIME_CPU_DENSE_KERNELS_H_
#define LORICA_RUNTIME_CPU_DENSE_KERNELS_H_

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/shape.h"

namespace lorica::cpu {

inline constexpr int64_t kPanelCols = 32;

// Packs `depth`, an even range of the K of b, for kPanelCols columns of the
// product from `first_col` on; columns past its last are zero. Words are
// [depth / 2, kPanelCols], on a boundary of 64 bytes. PackNT is for b [N, K],
// PackNN for b [K, N].
void PackPanelNT(const View& b, Range depth, int64_t first_col,
                 uint32_t* panel);
void PackPanelNN(const View& b, Range depth, int64_t first_col,
                 uint32_t* panel);

// Columns `depth` of the left operand a of a term.
struct PanelTerm {
  View a;
  Range depth;
};

// y = base + bias + the sum over the terms, for the columns of a panel.
struct PanelSum {
  const PanelTerm* terms;
  int64_t num_terms;
  const uint32_t* panel;
  View base;  // [T, cols] F32 or BF16; absent for zero.
  View bias;  // [cols], likewise.
  View y;     // [T, cols] F32 or BF16; may be base.
};
void SumRows(const PanelSum& sum, Range rows);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_DENSE_KERNELS_H_
