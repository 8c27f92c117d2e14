// Statistics of attention as a library keeps them, records side by side and
// each padded to the longest, and as lorica does, a row [T] of each head.
#ifndef LORICA_RUNTIME_CUDA_ATTENTION_PADDED_STATS_H_
#define LORICA_RUNTIME_CUDA_ATTENTION_PADDED_STATS_H_

#include <cstdint>

#include "runtime/backend.h"

namespace lorica::cuda {

// On the device.
struct PaddedStats {
  float* data;             // [records, heads, longest]
  const int32_t* starts;   // [records]: the row of each one's first token.
  const int32_t* lengths;  // [records]
  int64_t records;         // At most kMaxPaddedRecords.
  int64_t heads;           // Likewise.
  int64_t longest;
};
inline constexpr int64_t kMaxPaddedRecords = 65535;

// Rows of no record are left alone.
void Unpad(Queue* queue, const PaddedStats& stats, View lse);
// Past a record's end comes +infinity: any score less it has an exponential of
// zero.
void Pad(Queue* queue, View lse, const PaddedStats& stats);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_ATTENTION_PADDED_STATS_H_
