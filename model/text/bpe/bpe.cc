#include "model/text/bpe/bpe.h"

#include <limits>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/text/bpe/unicode.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// The words of natural text repeat; longer ones hardly do.
constexpr size_t kMaxCachedBytes = 64;
constexpr size_t kMaxCachedWords = 1 << 17;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
         static_cast<uint32_t>(right);
}

}  // namespace

bool Bpe::Candidate::operator<(const Candidate& other) const {
  return merge.rank != other.merge.rank ? merge.rank > other.merge.rank
                                        : position > other.position;
}

absl::StatusOr<Bpe> Bpe::Create(const TokenizerData& data) {
  Bpe bpe;
  bpe.ignore_merges_ = data.ignore_merges;
  bpe.fuse_unk_ = data.fuse_unk;
  bpe.unk_ = data.unk;
  bpe.ids_.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (data.tokens[id].empty()) {
      continue;
    }
    const auto [it, inserted] =
        bpe.ids_.try_emplace(data.tokens[id], static_cast<int32_t>(id));
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrCat("token '", data.tokens[id],
                                                     "' has two ids, ",
                                                     it->second, " and ", id));
    }
  }
  for (const AddedToken& added : data.added_tokens) {
    if (!added.in_model) {
      bpe.ids_.erase(added.content);
    }
  }
  LORICA_RETURN_IF_ERROR(bpe.AddMerges(data));
  return bpe;
}

absl::Status Bpe::AddMerges(const TokenizerData& data) {
  if (data.merges.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError("more than 2^31 merges");
  }
  merges_.reserve(data.merges.size());
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    const auto& [left, right] = data.merges[rank];
    const std::string both = left + right;
    for (const std::string* token : {&left, &right, &both}) {
      if (!ids_.contains(*token)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "merge ", rank, " ('", left, "' + '", right, "') needs the token '",
            *token, "', which the vocabulary lacks"));
      }
    }
    // Where a pair is listed twice the last one counts.
    merges_[PairKey(ids_.at(left), ids_.at(right))] = {
        static_cast<int32_t>(rank), ids_.at(both)};
  }
  return absl::OkStatus();
}

std::optional<int32_t> Bpe::Find(absl::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

void Bpe::Encode(absl::string_view word, std::vector<int32_t>* ids) {
  if (ignore_merges_) {
    if (const std::optional<int32_t> id = Find(word)) {
      ids->push_back(*id);
      return;
    }
  }
  const auto cached = cache_.find(word);
  if (cached != cache_.end()) {
    ids->insert(ids->end(), cached->second.begin(), cached->second.end());
    return;
  }
  const std::vector<int32_t> merged = MergeAll(InitialIds(word));
  ids->insert(ids->end(), merged.begin(), merged.end());
  if (word.size() <= kMaxCachedBytes && cache_.size() < kMaxCachedWords) {
    cache_.emplace(word, merged);
  }
}

// One id a character: its own, or the unknown token, or none at all.
std::vector<int32_t> Bpe::InitialIds(absl::string_view word) const {
  std::vector<int32_t> ids;
  bool after_unk = false;
  for (size_t at = 0; at < word.size();) {
    const size_t begin = at;
    NextCodePoint(word, &at);
    const absl::string_view character = word.substr(begin, at - begin);
    if (const std::optional<int32_t> id = Find(character)) {
      ids.push_back(*id);
      after_unk = false;
      continue;
    }
    if (unk_.has_value()) {
      if (!after_unk || !fuse_unk_) {
        ids.push_back(*unk_);
      }
      after_unk = true;
    }
  }
  return ids;
}

std::vector<int32_t> Bpe::MergeAll(absl::Span<const int32_t> initial) const {
  std::vector<Symbol> symbols(initial.size());
  const auto count = static_cast<int32_t>(initial.size());
  std::priority_queue<Candidate> candidates;
  const auto find = [&](int32_t left, int32_t right) -> const Merge* {
    const auto it = merges_.find(PairKey(symbols[left].id, symbols[right].id));
    return it == merges_.end() ? nullptr : &it->second;
  };
  const auto propose = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) {
      return;
    }
    if (const Merge* merge = find(left, right)) {
      candidates.push({*merge, left});
    }
  };
  for (int32_t i = 0; i < count; ++i) {
    symbols[i] = {initial[i], i - 1, i + 1 < count ? i + 1 : -1, false};
  }
  for (int32_t i = 0; i + 1 < count; ++i) {
    propose(i, i + 1);
  }
  while (!candidates.empty()) {
    const Candidate top = candidates.top();
    candidates.pop();
    Symbol& left = symbols[top.position];
    // An earlier merge may have changed either side.
    if (left.merged || left.next < 0) {
      continue;
    }
    const Merge* merge = find(top.position, left.next);
    if (merge == nullptr || merge->id != top.merge.id) {
      continue;
    }
    Symbol& right = symbols[left.next];
    left.id = top.merge.id;
    left.next = right.next;
    right.merged = true;
    if (left.next >= 0) {
      symbols[left.next].previous = top.position;
    }
    propose(left.previous, top.position);
    propose(top.position, left.next);
  }
  std::vector<int32_t> ids;
  for (const Symbol& symbol : symbols) {
    if (!symbol.merged) {
      ids.push_back(symbol.id);
    }
  }
  return ids;
}

}  // namespace lorica
