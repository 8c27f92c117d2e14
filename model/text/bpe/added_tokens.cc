#include "model/text/bpe/added_tokens.h"

#include <algorithm>

#include "model/text/bpe/unicode.h"

namespace lorica {
namespace {

// The start of the character that ends at `end`.
size_t PreviousCharacter(absl::string_view text, size_t end) {
  do {
    --end;
  } while ((static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}

bool WordEndsAt(absl::string_view text, size_t end) {
  if (end == 0) {
    return false;
  }
  size_t at = PreviousCharacter(text, end);
  return IsWord(NextCodePoint(text, &at));
}

bool WordStartsAt(absl::string_view text, size_t begin) {
  return begin < text.size() && IsWord(NextCodePoint(text, &begin));
}

size_t SpaceBefore(absl::string_view text, size_t end) {
  while (end > 0) {
    const size_t begin = PreviousCharacter(text, end);
    size_t at = begin;
    if (!IsWhiteSpace(NextCodePoint(text, &at))) {
      break;
    }
    end = begin;
  }
  return end;
}

size_t SpaceBehind(absl::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t at = begin;
    if (!IsWhiteSpace(NextCodePoint(text, &at))) {
      break;
    }
    begin = at;
  }
  return begin;
}

uint64_t EdgeKey(uint32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher() : token_at_(1, -1) {}

void AddedTokenMatcher::Add(const AddedToken& token) {
  uint32_t node = 0;
  for (const char byte : token.content) {
    const auto [edge, inserted] = children_.try_emplace(
        EdgeKey(node, byte), static_cast<uint32_t>(token_at_.size()));
    if (inserted) {
      token_at_.push_back(-1);
    }
    node = edge->second;
  }
  if (node != 0) {
    token_at_[node] = static_cast<int32_t>(tokens_.size());
    tokens_.push_back(token);
  }
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::LongestAt(
    absl::string_view text, size_t begin) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const auto edge = children_.find(EdgeKey(node, text[i]));
    if (edge == children_.end()) {
      break;
    }
    node = edge->second;
    if (token_at_[node] >= 0) {
      longest = {i + 1, &tokens_[token_at_[node]]};
    }
  }
  return longest;
}

std::vector<AddedTokenMatcher::Stretch> AddedTokenMatcher::Split(
    absl::string_view text) const {
  std::vector<Stretch> stretches;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const std::optional<Match> match = LongestAt(text, at);
    if (!match.has_value()) {
      ++at;
      continue;
    }
    ByteRange range{at, match->end};
    at = match->end;
    const AddedToken& token = *match->token;
    if (token.single_word &&
        (WordEndsAt(text, range.begin) || WordStartsAt(text, range.end))) {
      continue;
    }
    if (token.lstrip) {
      range.begin = std::max(SpaceBefore(text, range.begin), done);
    }
    if (token.rstrip) {
      range.end = SpaceBehind(text, range.end);
    }
    if (done < range.begin) {
      stretches.push_back({{done, range.begin}, std::nullopt});
    }
    stretches.push_back({range, token.id});
    done = range.end;
  }
  if (done < text.size()) {
    stretches.push_back({{done, text.size()}, std::nullopt});
  }
  return stretches;
}

}  // namespace lorica
