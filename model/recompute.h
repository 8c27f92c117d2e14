// What Backward computes again instead of keeping.
#ifndef LORICA_MODEL_RECOMPUTE_H_
#define LORICA_MODEL_RECOMPUTE_H_

#include <cstdint>

namespace lorica {

// Nothing; norms and gated products; or all of a block but its two output
// products, of which only the residual stream is kept. No choice repeats a
// collective or changes a bit of the result.
enum class Recompute : uint8_t { kNone, kCheap, kBlock };

}  // namespace lorica

#endif  // LORICA_MODEL_RECOMPUTE_H_
