// Finds added tokens, such as <|im_start|>, in a text.
#ifndef LORICA_MODEL_TEXT_BPE_ADDED_TOKENS_H_
#define LORICA_MODEL_TEXT_BPE_ADDED_TOKENS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "model/text/bpe/regex.h"
#include "model/text/tokenizer_data.h"

namespace lorica {

class AddedTokenMatcher {
 public:
  // A stretch of text: an added token, or what lies between two.
  struct Stretch {
    ByteRange range;
    std::optional<int32_t> id;
  };

  AddedTokenMatcher();

  void Add(const AddedToken& token);

  // The stretches of `text`, valid UTF-8, from left to right; none is empty. Of
  // tokens that begin at one place the longest is taken.
  std::vector<Stretch> Split(absl::string_view text) const;

 private:
  struct Match {
    size_t end = 0;
    const AddedToken* token = nullptr;
  };
  std::optional<Match> LongestAt(absl::string_view text, size_t begin) const;

  // A trie: children by (node, byte), and the token that ends at each node or
  // -1. Node 0 is the root.
  absl::flat_hash_map<uint64_t, uint32_t> children_;
  std::vector<int32_t> token_at_;
  std::vector<AddedToken> tokens_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_BPE_ADDED_TOKENS_H_
