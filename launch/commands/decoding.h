// Tokens that continue a prompt.
#ifndef LORICA_LAUNCH_COMMANDS_DECODING_H_
#define LORICA_LAUNCH_COMMANDS_DECODING_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "runtime/device.h"
#include "runtime/random.h"

namespace lorica {

struct DecodingOptions {
  int64_t max_tokens = 128;
  double temperature = 0;  // 0: the likeliest token, the lowest id of equals.
  uint64_t seed = 1;
  std::vector<int32_t> stops;  // Tokens that end the text; not part of it.
};

// Called with every new token as soon as it is known.
using OnToken = std::function<void(int32_t)>;

// Continues the prompt (at least one token) until a stop, max_tokens, or the
// model's last position. The same on all ranks of the model's group, each of
// which calls it. `adapter` may be null: the base model.
std::vector<int32_t> Continue(absl::Span<const int32_t> prompt,
                              const DecodingOptions& options, const Gpt& gpt,
                              const Adapter* adapter, Device* device,
                              const OnToken& on_token);

// The token that softmax(logits / temperature) and the number `uniform`, in
// [0, 1), pick.
int32_t PickToken(absl::Span<const float> logits, double temperature,
                  double uniform);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_DECODING_H_
