// Regular expressions as tokenizer files write them: Oniguruma's Ruby syntax
// over Unicode, matched by PCRE2.
#ifndef LORICA_MODEL_TEXT_BPE_REGEX_H_
#define LORICA_MODEL_TEXT_BPE_REGEX_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorica {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

// The PCRE2 pattern (UTF, UCP, MULTILINE) that matches what `pattern` matches
// in Oniguruma. What the two read differently and has no translation here is
// refused with its position.
absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern);

class Regex {
 public:
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);

  // Sets *matches to the matches in `text`, valid UTF-8, from left to right.
  // They do not overlap and may be empty. Fails where the pattern exceeds the
  // engine's limits on this text.
  absl::Status FindAll(absl::string_view text,
                       std::vector<ByteRange>* matches) const;

 private:
  struct Code;
  struct CodeDeleter {
    void operator()(Code* code) const;
  };
  explicit Regex(std::unique_ptr<Code, CodeDeleter> code);

  std::unique_ptr<Code, CodeDeleter> code_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_BPE_REGEX_H_
