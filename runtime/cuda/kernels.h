// The entries of the CUDA Backend table, one file of the room per group.
// Formulas and operands are those of runtime/backend.h. All of them enqueue on
// StreamOf(queue) and return; none allocates, copies or waits.
#ifndef LORICA_RUNTIME_CUDA_KERNELS_H_
#define LORICA_RUNTIME_CUDA_KERNELS_H_

#include <cstdint>

#include "runtime/backend.h"

namespace lorica::cuda {

// elementwise.cu
void Fill(Queue* queue, View y, float value);
void Convert(Queue* queue, View x, float scale, View y);
void ScatterPieces(Queue* queue, const ScatterPiecesArgs& args);
void Add(Queue* queue, View x, View y);
// In an order that depends on the length alone.
void SquaredNorm(Queue* queue, View x, View y);

// matmul.cc
void Matmul(Queue* queue, const MatmulArgs& args);

// thin_products.cu: whether it has this product, and the product.
//   y [m, n] = a b or a b',   n at most kMaxThin and m at least 16:
//                             activations to the rank,
//   y [m, n] = a' b, F32,     m or n at most kMaxThin: gradients of factors,
// of BF16 matrices whose rows are at multiples of 16 bytes. Sums in F32, in an
// order that depends on the shapes alone.
inline constexpr int64_t kMaxThin = 64;
bool IsThin(const MatmulArgs& args);
void ThinMatmul(Queue* queue, const MatmulArgs& args);

// norm.cu, of at most kMaxNormCols columns; rope.cu, swiglu.cu, gelu.cu
inline constexpr int64_t kMaxNormCols = 16384;
void RmsNorm(Queue* queue, const RmsNormArgs& args);
void RmsNormBackward(Queue* queue, const RmsNormBackwardArgs& args);
void LayerNorm(Queue* queue, const LayerNormArgs& args);
void LayerNormBackward(Queue* queue, const LayerNormBackwardArgs& args);
void Rope(Queue* queue, const RopeArgs& args);
void Swiglu(Queue* queue, const SwigluArgs& args);
void SwigluBackward(Queue* queue, const SwigluBackwardArgs& args);
void Gelu(Queue* queue, const GeluArgs& args);
void GeluBackward(Queue* queue, const GeluBackwardArgs& args);

// attention/, for heads of at most kMaxHeadDim elements.
inline constexpr int64_t kMaxHeadDim = 128;
void Attention(Queue* queue, const AttentionArgs& args);
void AttentionBackward(Queue* queue, const AttentionBackwardArgs& args);

// rows.cu, dropout.cu
void GatherRows(Queue* queue, const GatherRowsArgs& args);
void ScatterRows(Queue* queue, const ScatterRowsArgs& args);
void Dropout(Queue* queue, const DropoutArgs& args);

// logits.cu. Multiplies with Matmul.
void LogitStats(Queue* queue, const LogitStatsArgs& args);
void MergeLogitStats(Queue* queue, const MergeLogitStatsArgs& args);
void LogitGrad(Queue* queue, const LogitGradArgs& args);

// adamw.cu
void AdamW(Queue* queue, const AdamWArgs& args);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_KERNELS_H_
