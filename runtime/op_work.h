// What the entries of the backend's table have to do at least: floating-point
// operations, and bytes read and written once each.
#ifndef LORICA_RUNTIME_OP_WORK_H_
#define LORICA_RUNTIME_OP_WORK_H_

#include "runtime/backend.h"
#include "runtime/trace.h"

namespace lorica {

// Multiplications and additions count one each. Of elementwise entries only
// bytes are counted: memory bounds them.
Work WorkOf(const ScatterPiecesArgs& args);  // Of pieces that are all of x.
Work WorkOf(const MatmulArgs& args);
// Base and adapter products of all parts.
Work WorkOf(const LoraForwardArgs& args);
Work WorkOf(const LoraBackwardArgs& args);
Work WorkOf(const RmsNormArgs& args);
Work WorkOf(const RmsNormBackwardArgs& args);
Work WorkOf(const LayerNormArgs& args);
Work WorkOf(const LayerNormBackwardArgs& args);
Work WorkOf(const RopeArgs& args);
Work WorkOf(const SwigluArgs& args);
Work WorkOf(const SwigluBackwardArgs& args);
Work WorkOf(const GeluArgs& args);
Work WorkOf(const GeluBackwardArgs& args);
// Products of the causal half alone: two of [queries, keys] x head_dim forward,
// five backward.
Work WorkOf(const AttentionArgs& args);
Work WorkOf(const AttentionBackwardArgs& args);
Work WorkOf(const GatherRowsArgs& args);
Work WorkOf(const ScatterRowsArgs& args);
Work WorkOf(const DropoutArgs& args);
Work WorkOf(const LogitStatsArgs& args);
Work WorkOf(const MergeLogitStatsArgs& args);
Work WorkOf(const LogitGradArgs& args);
Work WorkOf(const AdamWArgs& args);

// The entries that take no struct.
Work WorkOf(View y, float value);          // fill
Work WorkOf(View x, float scale, View y);  // convert
Work WorkOf(View x, View y);               // add, squared_norm
// copy_in and copy_out
Work WorkOf(void* dst, const void* src, size_t bytes);

}  // namespace lorica

#endif  // LORICA_RUNTIME_OP_WORK_H_
