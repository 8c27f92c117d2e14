#include "launch/export/probe.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numeric>

#include "launch/base_model.h"
#include "model/gpt.h"
#include "model/pass.h"
#include "model/plans.h"
#include "runtime/check.h"
#include "runtime/random.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

Pass MakeProbe(Device* device, int64_t tokens, int64_t vocab) {
  const RandomField random = {.seed = 1, .stream = StreamOf("probe")};
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i) {
    const double place =
        random.Uniform(static_cast<uint64_t>(i)) * static_cast<double>(vocab);
    ids.push_back(
        static_cast<int32_t>(std::min(static_cast<int64_t>(place), vocab - 1)));
  }
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  Pass pass;
  pass.tokens = tokens;
  pass.ids = Tensor::FromHost<int32_t>(device, {tokens}, ids);
  pass.positions = Tensor::FromHost<int32_t>(device, {tokens}, positions);
  pass.segments = {{.first_query = 0,
                    .num_queries = tokens,
                    .first_key = 0,
                    .num_keys = tokens}};
  return pass;
}

}  // namespace

absl::StatusOr<std::vector<float>> ProbeLogits(const std::string& model,
                                               const PeftAdapter* adapter,
                                               const std::string& directory,
                                               int64_t tokens,
                                               const Session& session) {
  LORICA_ASSIGN_OR_RETURN(const BaseModel base, OpenBaseModel(model, session));
  std::unique_ptr<Adapter> loaded;
  if (adapter != nullptr) {
    LORICA_ASSIGN_OR_RETURN(
        loaded, LoadAdapter(base, *adapter, directory, DType::kF32, session));
  }
  const std::unique_ptr<Gpt> gpt =
      LoadGpt(base, DType::kF32, kTensorParallel, session, loaded.get());
  std::vector<KvCache> caches = gpt->MakeCaches(tokens);
  return gpt
      ->Decode(
          MakeProbe(session.device(), tokens, base.source.config().vocab_size),
          loaded.get(), &caches)
      .ToFloats();
}

LogitDifference Compare(const std::vector<float>& x,
                        const std::vector<float>& y, int64_t tokens) {
  CHECK_EQ(x.size(), y.size());
  LogitDifference result{.tokens = tokens};
  double squares = 0;
  double logit_squares = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = double{x[i]} - double{y[i]};
    result.largest = std::max(result.largest, std::abs(difference));
    squares += difference * difference;
    logit_squares += double{x[i]} * double{x[i]};
  }
  const double count = static_cast<double>(x.size());
  result.rms = std::sqrt(squares / count);
  result.rms_logit = std::sqrt(logit_squares / count);
  const auto vocab = static_cast<int64_t>(x.size()) / tokens;
  const auto choice = [vocab](const std::vector<float>& logits, int64_t token) {
    const auto row = logits.begin() + token * vocab;
    return std::max_element(row, row + vocab) - row;
  };
  for (int64_t token = 0; token < tokens; ++token) {
    result.same_choices += choice(x, token) == choice(y, token) ? 1 : 0;
  }
  return result;
}

}  // namespace lorica
