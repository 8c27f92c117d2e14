// Tokens of whole records on the host, ready to run.
#ifndef LORICA_MODEL_TOKEN_BATCH_H_
#define LORICA_MODEL_TOKEN_BATCH_H_

#include <cstdint>
#include <vector>

#include "runtime/backend.h"

namespace lorica {

// Records one after another, without padding. The arrays have one entry a
// token; `segments` says which tokens are one record.
struct TokenBatch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;  // Restart with every record.
  std::vector<int32_t> targets;    // The token to predict here, or -1.
  std::vector<int64_t> row_index;  // The token's number in the run.
  std::vector<Segment> segments;   // In order, covering all tokens.
  int64_t num_targets = 0;         // Entries of `targets` that are not -1.
};

}  // namespace lorica

#endif  // LORICA_MODEL_TOKEN_BATCH_H_
