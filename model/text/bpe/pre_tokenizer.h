// Text to words: where byte-pair merges may not reach across.
#ifndef LORICA_MODEL_TEXT_BPE_PRE_TOKENIZER_H_
#define LORICA_MODEL_TEXT_BPE_PRE_TOKENIZER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/bpe/regex.h"
#include "model/text/tokenizer_data.h"

namespace lorica {

class PreTokenizer {
 public:
  // Receives a word in the byte-level alphabet, a character a byte, and the
  // offset of its first byte in the text. A leading space that was added counts
  // as the byte before the text it was put before.
  using Visitor =
      absl::FunctionRef<void(absl::string_view word, int64_t begin)>;

  // Fails on a pattern that does not compile and unless ByteLevel is the last
  // step and no other: a step behind it would see its alphabet, not the text.
  static absl::StatusOr<PreTokenizer> Create(
      const std::vector<PreTokenizerStep>& steps);

  // Visits the words of `text`, valid UTF-8, from left to right.
  absl::Status Split(absl::string_view text, Visitor visit) const;

 private:
  struct Step {
    PreTokenizerStep spec;
    std::optional<Regex> regex;
  };

  std::vector<Step> steps_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_BPE_PRE_TOKENIZER_H_
