// Byte-pair encoding of words (Sennrich et al. 2016).
#ifndef LORICA_MODEL_TEXT_BPE_BPE_H_
#define LORICA_MODEL_TEXT_BPE_BPE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/text/tokenizer_data.h"

namespace lorica {

class Bpe {
 public:
  // Fails on tokens that occur twice and on merges of or into something that
  // is no token of the model.
  static absl::StatusOr<Bpe> Create(const TokenizerData& data);

  // Appends the ids of a word, valid UTF-8. Remembers short words: not for
  // concurrent use.
  void Encode(absl::string_view word, std::vector<int32_t>* ids);

  std::optional<int32_t> Find(absl::string_view token) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t id = 0;
  };
  // A token of a word under construction, linked to its neighbours.
  struct Symbol {
    int32_t id = 0;
    int32_t previous = -1;
    int32_t next = -1;
    bool merged = false;  // Into its left neighbour.
  };
  // A merge to try: of the symbol at `position` and the one behind it.
  struct Candidate {
    Merge merge;
    int32_t position = 0;
    // The heap's top is the best rank, then the leftmost.
    bool operator<(const Candidate& other) const;
  };

  Bpe() = default;
  absl::Status AddMerges(const TokenizerData& data);
  std::vector<int32_t> InitialIds(absl::string_view word) const;
  std::vector<int32_t> MergeAll(absl::Span<const int32_t> initial) const;

  absl::flat_hash_map<std::string, int32_t> ids_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // By left id, right id.
  bool ignore_merges_ = false;
  bool fuse_unk_ = false;
  std::optional<int32_t> unk_;

  absl::flat_hash_map<std::string, std::vector<int32_t>> cache_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_BPE_BPE_H_
