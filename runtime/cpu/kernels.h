// The entries of the CPU's Backend table, one file of the room per group.
// Formulas and operands are those of runtime/backend.h.
#ifndef LORICA_RUNTIME_CPU_KERNELS_H_
#define LORICA_RUNTIME_CPU_KERNELS_H_

#include "runtime/backend.h"

namespace lorica::cpu {

struct Queue;

// elementwise.cc
void Fill(Queue* queue, View y, float value);
void Convert(Queue* queue, View x, float scale, View y);
void ScatterPieces(Queue* queue, const ScatterPiecesArgs& args);
void Add(Queue* queue, View x, View y);
void SquaredNorm(Queue* queue, View x, View y);

// matmul.cc
void Matmul(Queue* queue, const MatmulArgs& args);

// lora.cc
void LoraForward(Queue* queue, const LoraForwardArgs& args);
void LoraBackward(Queue* queue, const LoraBackwardArgs& args);

// norm.cc, rope.cc, swiglu.cc, gelu.cc
void RmsNorm(Queue* queue, const RmsNormArgs& args);
void RmsNormBackward(Queue* queue, const RmsNormBackwardArgs& args);
void LayerNorm(Queue* queue, const LayerNormArgs& args);
void LayerNormBackward(Queue* queue, const LayerNormBackwardArgs& args);
void Rope(Queue* queue, const RopeArgs& args);
void Swiglu(Queue* queue, const SwigluArgs& args);
void SwigluBackward(Queue* queue, const SwigluBackwardArgs& args);
void Gelu(Queue* queue, const GeluArgs& args);
void GeluBackward(Queue* queue, const GeluBackwardArgs& args);

// attention/
void Attention(Queue* queue, const AttentionArgs& args);
void AttentionBackward(Queue* queue, const AttentionBackwardArgs& args);

// rows.cc, dropout.cc
void GatherRows(Queue* queue, const GatherRowsArgs& args);
void ScatterRows(Queue* queue, const ScatterRowsArgs& args);
void Dropout(Queue* queue, const DropoutArgs& args);

// logits.cc
void LogitStats(Queue* queue, const LogitStatsArgs& args);
void MergeLogitStats(Queue* queue, const MergeLogitStatsArgs& args);
void LogitGrad(Queue* queue, const LogitGradArgs& args);

// adamw.cc
void AdamW(Queue* queue, const AdamWArgs& args);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_KERNELS_H_
