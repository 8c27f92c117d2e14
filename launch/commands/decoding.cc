#include "launch/commands/decoding.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/pass.h"
#include "runtime/check.h"

namespace lorica {
namespace {

// The tokens at positions first, first + 1, ... of one record whose earlier
// tokens are in the caches. Only the last one's logits are wanted.
Pass MakeDecodingPass(Device* device, absl::Span<const int32_t> tokens,
                      int64_t first) {
  const int64_t count = static_cast<int64_t>(tokens.size());
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(first));
  const std::vector<int32_t> selected = {static_cast<int32_t>(count - 1)};
  Pass pass;
  pass.tokens = count;
  pass.ids = Tensor::FromHost(device, {count}, tokens);
  pass.positions =
      Tensor::FromHost(device, {count}, absl::Span<const int32_t>(positions));
  pass.segments = {{.first_query = 0,
                    .num_queries = count,
                    .first_key = 0,
                    .num_keys = first + count}};
  pass.selected =
      Tensor::FromHost(device, {1}, absl::Span<const int32_t>(selected));
  return pass;
}

bool Contains(const std::vector<int32_t>& tokens, int32_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

int32_t PickToken(absl::Span<const float> logits, double temperature,
                  double uniform) {
  CHECK(!logits.empty());
  const auto best = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) return static_cast<int32_t>(best - logits.begin());
  const auto weight = [&](float logit) {
    return std::exp((double{logit} - double{*best}) / temperature);
  };
  double sum = 0;
  for (const float logit : logits) sum += weight(logit);
  double left = uniform * sum;
  int32_t picked = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (weight(logits[i]) <= 0) continue;
    picked = static_cast<int32_t>(i);
    left -= weight(logits[i]);
    if (left < 0) break;
  }
  return picked;
}

std::vector<int32_t> Continue(absl::Span<const int32_t> prompt,
                              const DecodingOptions& options, const Gpt& gpt,
                              const Adapter* adapter, Device* device,
                              const OnToken& on_token) {
  CHECK(!prompt.empty());
  const int64_t prompt_tokens = static_cast<int64_t>(prompt.size());
  const int64_t limit =
      std::min(options.max_tokens, gpt.config().max_positions - prompt_tokens);
  const RandomField random = {options.seed, StreamOf("generate")};
  std::vector<KvCache> caches =
      gpt.MakeCaches(prompt_tokens + std::max<int64_t>(limit, 0));
  std::vector<int32_t> tokens;
  std::vector<int32_t> fresh(prompt.begin(), prompt.end());
  int64_t first = 0;
  while (static_cast<int64_t>(tokens.size()) < limit) {
    const Tensor logits =
        gpt.Decode(MakeDecodingPass(device, fresh, first), adapter, &caches);
    const int32_t token = PickToken(logits.ToFloats(), options.temperature,
                                    random.Uniform(tokens.size()));
    if (Contains(options.stops, token)) break;
    tokens.push_back(token);
    on_token(token);
    first += static_cast<int64_t>(fresh.size());
    fresh = {token};
  }
  return tokens;
}

}  // namespace lorica
