// Text to token ids and back: byte-level BPE, with the ids that the tokenizers
// package of Hugging Face gives.
#ifndef LORICA_MODEL_TEXT_TOKENIZER_H_
#define LORICA_MODEL_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/text/bpe/added_tokens.h"
#include "model/text/bpe/regex.h"
#include "model/text/tokenizer_data.h"

namespace lorica {

// In encoding, whether the tokenizer's own prefix and suffix (a bos, say) go
// around the text; special tokens written in the text are found either way. In
// decoding, whether special tokens appear.
enum class SpecialTokens : uint8_t { kOmit, kInclude };

struct Encoding {
  std::vector<int32_t> ids;
  // The bytes of the text that each id covers, empty for prefix and suffix.
  // Where normalization changed a run of characters all its bytes count as its
  // first one.
  std::vector<ByteRange> ranges;
};

class Tokenizer {
 public:
  // Fails, naming the value, on data that contradicts itself.
  static absl::StatusOr<Tokenizer> Create(TokenizerData data);

  // Fails on text that is not UTF-8, naming the first bad byte: the reference
  // takes no such text, and a replacement would be a guess. Thread-safe; calls
  // take turns.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              SpecialTokens special) const;
  absl::StatusOr<Encoding> EncodeWithRanges(absl::string_view text,
                                            SpecialTokens special) const;

  // The bytes the ids stand for, which need not end at a character's boundary.
  // Ids that are no token are left out.
  std::string DecodeBytes(absl::Span<const int32_t> ids,
                          SpecialTokens special) const;
  // Likewise, with U+FFFD for what is not UTF-8.
  std::string Decode(absl::Span<const int32_t> ids,
                     SpecialTokens special) const;

  // One more than the greatest id.
  int64_t num_ids() const { return static_cast<int64_t>(data_.tokens.size()); }
  bool IsSpecial(int32_t id) const;
  // The token as the vocabulary writes it; empty where there is none.
  const std::string& token(int32_t id) const;
  std::optional<int32_t> bos() const { return data_.bos; }
  std::optional<int32_t> eos() const { return data_.eos; }
  std::optional<int32_t> pad() const { return data_.pad; }
  // The Jinja template of the model's conversations; empty if none is known.
  const std::string& chat_template() const { return data_.chat_template; }

 private:
  // The parts that change while encoding, behind a lock.
  struct Words;
  struct WordsDeleter {
    void operator()(Words* words) const;
  };

  Tokenizer() = default;
  bool Exists(int32_t id) const;
  absl::Status AddTokens();
  absl::Status CheckRoles() const;
  absl::Status EncodeStretch(absl::string_view text, size_t begin,
                             Encoding* out) const;

  TokenizerData data_;
  std::vector<bool> is_special_;    // By id.
  std::vector<std::string> bytes_;  // By id: what a token decodes to.
  AddedTokenMatcher raw_;           // Finds tokens in the text as it is,
  AddedTokenMatcher normalized_;    // and these in the normalized text.
  std::unique_ptr<Words, WordsDeleter> words_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_TOKENIZER_H_
