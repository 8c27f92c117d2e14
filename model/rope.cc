#include "model/rope.h"

#include <cmath>
#include <cstddef>
#include <numbers>

#include "runtime/check.h"

namespace lorica {
namespace {

// PyTorch divides a number by a tensor as the tensor's reciprocal times the
// number, which rounds twice.
float Quotient(float number, float divisor) {
  return (1.0f / divisor) * number;
}

float Llama3Frequency(float freq, const RopeScaling& scaling) {
  const float factor = static_cast<float>(scaling.factor);
  const float positions = static_cast<float>(scaling.original_max_positions);
  const float low = static_cast<float>(scaling.low_freq_factor);
  const double high = scaling.high_freq_factor;
  const float wavelength =
      Quotient(static_cast<float>(2 * std::numbers::pi), freq);
  if (wavelength > static_cast<float>(scaling.original_max_positions /
                                      scaling.low_freq_factor)) {
    return freq / factor;
  }
  if (wavelength < static_cast<float>(scaling.original_max_positions / high)) {
    return freq;
  }
  const float smooth = (Quotient(positions, wavelength) - low) /
                       static_cast<float>(high - scaling.low_freq_factor);
  const float divided = (1.0f - smooth) * freq / factor;
  const float kept = smooth * freq;
  return divided + kept;
}

}  // namespace

RopeConfig MakeRope(double theta, int64_t head_dim,
                    const RopeScaling& scaling) {
  RopeConfig rope;
  for (int64_t j = 0; j < head_dim / 2; ++j) {
    const float exponent =
        static_cast<float>(2 * j) / static_cast<float>(head_dim);
    const float freq = 1.0f / std::pow(static_cast<float>(theta), exponent);
    switch (scaling.type) {
      case RopeScaling::Type::kNone:
        rope.inv_freq.push_back(freq);
        break;
      case RopeScaling::Type::kLinear:
        rope.inv_freq.push_back(freq / static_cast<float>(scaling.factor));
        break;
      case RopeScaling::Type::kLlama3:
        rope.inv_freq.push_back(Llama3Frequency(freq, scaling));
        break;
    }
  }
  return rope;
}

void DivideFrequencies(absl::Span<const float> divisors, RopeConfig* rope) {
  CHECK_EQ(divisors.size(), rope->inv_freq.size());
  for (size_t j = 0; j < divisors.size(); ++j) {
    rope->inv_freq[j] /= divisors[j];
  }
}

}  // namespace lorica
