#include "model/text/tokenizer.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/text/bpe/bpe.h"
#include "model/text/bpe/pre_tokenizer.h"
#include "model/text/bpe/unicode.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// A token of the byte-level alphabet as bytes; any other as it stands.
std::string TokenBytes(absl::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const int byte = CharacterToByte(NextCodePoint(token, &at));
    if (byte < 0) {
      return std::string(token);
    }
    bytes.push_back(static_cast<char>(byte));
  }
  return bytes;
}

}  // namespace

struct Tokenizer::Words {
  std::mutex mutex;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
};

void Tokenizer::WordsDeleter::operator()(Words* words) const { delete words; }

absl::StatusOr<Tokenizer> Tokenizer::Create(TokenizerData data) {
  Tokenizer tokenizer;
  tokenizer.data_ = std::move(data);
  LORICA_RETURN_IF_ERROR(tokenizer.AddTokens());
  const TokenizerData& d = tokenizer.data_;
  for (size_t id = 0; id < d.tokens.size(); ++id) {
    if (!CheckUtf8(d.tokens[id]).ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " is not UTF-8"));
    }
    tokenizer.bytes_.push_back(TokenBytes(d.tokens[id]));
  }
  LORICA_RETURN_IF_ERROR(tokenizer.CheckRoles());
  LORICA_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer,
                          PreTokenizer::Create(d.pre_tokenizer));
  LORICA_ASSIGN_OR_RETURN(Bpe bpe, Bpe::Create(d));
  tokenizer.words_.reset(
      new Words{{}, std::move(pre_tokenizer), std::move(bpe)});
  return tokenizer;
}

absl::Status Tokenizer::AddTokens() {
  is_special_.assign(data_.tokens.size(), false);
  for (const AddedToken& added : data_.added_tokens) {
    if (!CheckUtf8(added.content).ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("added token ", added.id, " is not UTF-8"));
    }
    if (!Exists(added.id) || data_.tokens[added.id] != added.content) {
      return absl::InvalidArgumentError(
          absl::StrCat("added token '", added.content, "' has id ", added.id,
                       ", where the vocabulary holds '", token(added.id), "'"));
    }
    is_special_[added.id] = added.special;
    if (added.normalized && data_.normalizer == Normalizer::kNfc) {
      AddedToken composed = added;
      composed.content = ComposeNfc(added.content, nullptr);
      normalized_.Add(composed);
    } else if (added.normalized) {
      normalized_.Add(added);
    } else {
      raw_.Add(added);
    }
  }
  return absl::OkStatus();
}

// The tokens with a role exist.
absl::Status Tokenizer::CheckRoles() const {
  std::vector<std::pair<absl::string_view, std::optional<int32_t>>> roles = {
      {"bos", data_.bos},
      {"eos", data_.eos},
      {"pad", data_.pad},
      {"unk", data_.unk}};
  for (const std::vector<int32_t>* around : {&data_.prefix, &data_.suffix}) {
    for (const int32_t id : *around) {
      roles.emplace_back("a token put around the text", id);
    }
  }
  for (const auto& [role, id] : roles) {
    if (id.has_value() && !Exists(*id)) {
      return absl::InvalidArgumentError(
          absl::StrCat(role, " is token ", *id, ", which the vocabulary of ",
                       num_ids(), " ids lacks"));
    }
  }
  return absl::OkStatus();
}

bool Tokenizer::Exists(int32_t id) const { return !token(id).empty(); }

const std::string& Tokenizer::token(int32_t id) const {
  static const std::string* const kNone = new std::string;
  const bool inside = id >= 0 && id < num_ids();
  return inside ? data_.tokens[id] : *kNone;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return Exists(id) && is_special_[id];
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(
    absl::string_view text, SpecialTokens special) const {
  LORICA_ASSIGN_OR_RETURN(Encoding encoding, EncodeWithRanges(text, special));
  return std::move(encoding.ids);
}

absl::StatusOr<Encoding> Tokenizer::EncodeWithRanges(
    absl::string_view text, SpecialTokens special) const {
  LORICA_RETURN_IF_ERROR(CheckUtf8(text));
  const std::lock_guard<std::mutex> lock(words_->mutex);
  Encoding out;
  const auto add_around = [&](const std::vector<int32_t>& ids, size_t at) {
    if (special == SpecialTokens::kInclude) {
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
      out.ranges.resize(out.ids.size(), {at, at});
    }
  };
  add_around(data_.prefix, 0);
  for (const auto& [range, id] : raw_.Split(text)) {
    if (id.has_value()) {
      out.ids.push_back(*id);
      out.ranges.push_back(range);
    } else {
      LORICA_RETURN_IF_ERROR(
          EncodeStretch(text.substr(range.begin, range.end - range.begin),
                        range.begin, &out));
    }
  }
  add_around(data_.suffix, text.size());
  return out;
}

// Encodes text without raw tokens that starts at byte `begin` of the whole.
absl::Status Tokenizer::EncodeStretch(absl::string_view text, size_t begin,
                                      Encoding* out) const {
  std::vector<int64_t> source;
  std::string normalized;
  if (data_.normalizer == Normalizer::kNfc) {
    normalized = ComposeNfc(text, &source);
    source.push_back(static_cast<int64_t>(text.size()));
    text = normalized;
  }
  const auto add = [&](int32_t id, int64_t from, int64_t to) {
    const auto size = static_cast<int64_t>(text.size());
    const auto original = [&](int64_t at) {
      at = std::clamp<int64_t>(at, 0, size);
      return begin + static_cast<size_t>(source.empty() ? at : source[at]);
    };
    out->ids.push_back(id);
    out->ranges.push_back({original(from), original(to)});
  };
  std::vector<int32_t> ids;
  for (const auto& [range, id] : normalized_.Split(text)) {
    const auto first = static_cast<int64_t>(range.begin);
    if (id.has_value()) {
      add(*id, first, static_cast<int64_t>(range.end));
      continue;
    }
    LORICA_RETURN_IF_ERROR(words_->pre_tokenizer.Split(
        text.substr(range.begin, range.end - range.begin),
        [&](absl::string_view word, int64_t word_begin) {
          ids.clear();
          words_->bpe.Encode(word, &ids);
          int64_t at = first + word_begin;
          for (const int32_t word_id : ids) {
            const int64_t end =
                at + static_cast<int64_t>(bytes_[word_id].size());
            add(word_id, at, end);
            at = end;
          }
        }));
  }
  return absl::OkStatus();
}

std::string Tokenizer::DecodeBytes(absl::Span<const int32_t> ids,
                                   SpecialTokens special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (Exists(id) &&
        (special == SpecialTokens::kInclude || !is_special_[id])) {
      bytes += bytes_[id];
    }
  }
  return bytes;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids,
                              SpecialTokens special) const {
  return Utf8Lossy(DecodeBytes(ids, special));
}

}  // namespace lorica
