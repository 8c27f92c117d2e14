// The logits of a model on a few tokens, to compare two forms of it.
#ifndef LORICA_LAUNCH_EXPORT_PROBE_H_
#define LORICA_LAUNCH_EXPORT_PROBE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/session.h"
#include "model/peft_adapter.h"

namespace lorica {

// [tokens, vocabulary] logits, computed in F32 over all ranks of the session,
// of one record of `tokens` token ids drawn evenly from the vocabulary: the
// same for every model of that vocabulary. Takes the memory of the model in
// F32, split over the ranks. `adapter` may be null; `directory` names it in
// errors. Agreed on by all ranks. Errors: what OpenBaseModel and LoadAdapter
// refuse.
absl::StatusOr<std::vector<float>> ProbeLogits(const std::string& model,
                                               const PeftAdapter* adapter,
                                               const std::string& directory,
                                               int64_t tokens,
                                               const Session& session);

struct LogitDifference {
  int64_t tokens = 0;
  double largest = 0;  // Of |x - y|.
  double rms = 0;
  double rms_logit = 0;      // Of x, to compare with.
  int64_t same_choices = 0;  // Tokens whose likeliest next token is the same.
};

// Of two results for as many tokens.
LogitDifference Compare(const std::vector<float>& x,
                        const std::vector<float>& y, int64_t tokens);

}  // namespace lorica

#endif  // LORICA_LAUNCH_EXPORT_PROBE_H_
