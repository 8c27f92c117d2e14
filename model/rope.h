// Frequencies of rotary positions, as transformers computes them.
#ifndef LORICA_MODEL_ROPE_H_
#define LORICA_MODEL_ROPE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "model/gpt_config.h"

namespace lorica {

// How a model trained on short texts was stretched to longer ones. kLinear
// divides every frequency by `factor`; kLlama3 divides only the low ones, those
// that turn fewer than low_freq_factor times in original_max_positions, leaves
// those that turn more than high_freq_factor times and blends in between.
struct RopeScaling {
  enum class Type : uint8_t { kNone, kLinear, kLlama3 };
  Type type = Type::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_positions = 0.0;
};

// The largest head size a file may claim; beyond it something is damaged.
inline constexpr int64_t kMaxHeadDim = 65536;

// Frequency j is theta^(-2j / head_dim), scaled. In F32 and in transformers'
// order of operations, so that positions in the thousands agree.
RopeConfig MakeRope(double theta, int64_t head_dim, const RopeScaling& scaling);

// Divides frequency j by divisors[j], as GGUF stores a scaling.
void DivideFrequencies(absl::Span<const float> divisors, RopeConfig* rope);

}  // namespace lorica

#endif  // LORICA_MODEL_ROPE_H_
