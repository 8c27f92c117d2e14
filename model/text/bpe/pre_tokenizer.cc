#include "model/text/bpe/pre_tokenizer.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/text/bpe/unicode.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// The pattern of Radford et al. 2019 (GPT-2).
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A piece of the text on its way to be a word. With a space added in front,
// `text` is a copy and begin is one less than where the piece lies.
struct Fragment {
  absl::string_view text;
  int64_t begin = 0;
};

struct Part {
  ByteRange range;
  bool is_match = false;
};

// Matches and what lies between them, in order.
std::vector<Part> PartsOf(size_t size, const std::vector<ByteRange>& matches,
                          bool invert) {
  std::vector<Part> parts;
  size_t end = 0;
  for (const ByteRange& match : matches) {
    if (end < match.begin) {
      parts.push_back({{end, match.begin}, invert});
    }
    parts.push_back({match, !invert});
    end = match.end;
  }
  if (end < size) {
    parts.push_back({{end, size}, invert});
  }
  return parts;
}

// Joins parts as the behavior says, or drops them.
std::vector<ByteRange> Join(std::vector<Part> parts, SplitBehavior behavior) {
  std::vector<ByteRange> joined;
  bool previous_match = false;
  const auto add = [&](const Part& part, bool merge) {
    if (merge && !joined.empty()) {
      joined.back().begin = std::min(joined.back().begin, part.range.begin);
      joined.back().end = std::max(joined.back().end, part.range.end);
    } else {
      joined.push_back(part.range);
    }
    previous_match = part.is_match;
  };
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const Part& part : parts) {
        if (!part.is_match) {
          joined.push_back(part.range);
        }
      }
      break;
    case SplitBehavior::kIsolated:
      for (const Part& part : parts) {
        joined.push_back(part.range);
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Part& part : parts) {
        add(part, part.is_match && !previous_match);
      }
      break;
    case SplitBehavior::kMergedWithNext:
      std::reverse(parts.begin(), parts.end());
      for (const Part& part : parts) {
        add(part, part.is_match && !previous_match);
      }
      std::reverse(joined.begin(), joined.end());
      break;
    case SplitBehavior::kContiguous:
      for (const Part& part : parts) {
        add(part, part.is_match == previous_match);
      }
      break;
  }
  return joined;
}

std::vector<ByteRange> FindLiteral(absl::string_view text,
                                   absl::string_view literal) {
  std::vector<ByteRange> matches;
  for (size_t at = text.find(literal); at != absl::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
  return matches;
}

std::vector<ByteRange> FindNumeric(absl::string_view text) {
  std::vector<ByteRange> matches;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (IsNumeric(NextCodePoint(text, &at))) {
      matches.push_back({begin, at});
    }
  }
  return matches;
}

// Replaces each fragment by the ranges `split` finds in it.
template <typename Function>
absl::Status SplitEach(std::vector<Fragment>* fragments,
                       const Function& split) {
  std::vector<Fragment> next;
  for (const Fragment& fragment : *fragments) {
    std::vector<ByteRange> ranges;
    LORICA_RETURN_IF_ERROR(split(fragment.text, &ranges));
    for (const ByteRange& range : ranges) {
      if (range.begin < range.end) {
        next.push_back(
            {fragment.text.substr(range.begin, range.end - range.begin),
             fragment.begin + static_cast<int64_t>(range.begin)});
      }
    }
  }
  *fragments = std::move(next);
  return absl::OkStatus();
}

void AddPrefixSpace(std::vector<Fragment>* fragments,
                    std::deque<std::string>* copies) {
  for (Fragment& fragment : *fragments) {
    if (!absl::StartsWith(fragment.text, " ")) {
      copies->push_back(absl::StrCat(" ", fragment.text));
      fragment = {copies->back(), fragment.begin - 1};
    }
  }
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(
    const std::vector<PreTokenizerStep>& steps) {
  const bool byte_level_last =
      !steps.empty() && std::holds_alternative<ByteLevelStep>(steps.back());
  PreTokenizer result;
  for (const PreTokenizerStep& spec : steps) {
    if (std::holds_alternative<ByteLevelStep>(spec) !=
        (byte_level_last && &spec == &steps.back())) {
      return absl::UnimplementedError("steps behind ByteLevel");
    }
    Step step{spec, std::nullopt};
    const auto* split = std::get_if<SplitStep>(&spec);
    const auto* byte_level = std::get_if<ByteLevelStep>(&spec);
    if (split != nullptr && split->kind == PatternKind::kRegex) {
      LORICA_ASSIGN_OR_RETURN(step.regex, Regex::Compile(split->pattern));
    } else if (split != nullptr && split->pattern.empty()) {
      return absl::InvalidArgumentError("Split has an empty pattern");
    } else if (byte_level != nullptr && byte_level->use_regex) {
      LORICA_ASSIGN_OR_RETURN(step.regex, Regex::Compile(kGpt2Pattern));
    }
    result.steps_.push_back(std::move(step));
  }
  if (!byte_level_last) {
    return absl::UnimplementedError("a pre-tokenizer that is not ByteLevel");
  }
  return result;
}

absl::Status PreTokenizer::Split(absl::string_view text, Visitor visit) const {
  std::vector<Fragment> fragments{{text, 0}};
  std::deque<std::string> copies;
  for (const Step& step : steps_) {
    SplitStep split;
    if (const auto* digits = std::get_if<DigitsStep>(&step.spec)) {
      split.behavior = digits->individual ? SplitBehavior::kIsolated
                                          : SplitBehavior::kContiguous;
    } else if (const auto* spec = std::get_if<SplitStep>(&step.spec)) {
      split = *spec;
    } else {
      const auto& byte_level = std::get<ByteLevelStep>(step.spec);
      if (byte_level.add_prefix_space) {
        AddPrefixSpace(&fragments, &copies);
      }
      if (!byte_level.use_regex) {
        continue;
      }
    }
    const auto ranges_of = [&](absl::string_view piece,
                               std::vector<ByteRange>* ranges) {
      std::vector<ByteRange> matches;
      if (step.regex.has_value()) {
        LORICA_RETURN_IF_ERROR(step.regex->FindAll(piece, &matches));
      } else if (std::holds_alternative<DigitsStep>(step.spec)) {
        matches = FindNumeric(piece);
      } else {
        matches = FindLiteral(piece, split.pattern);
      }
      *ranges =
          Join(PartsOf(piece.size(), matches, split.invert), split.behavior);
      return absl::OkStatus();
    };
    LORICA_RETURN_IF_ERROR(SplitEach(&fragments, ranges_of));
  }
  std::string word;
  for (const Fragment& fragment : fragments) {
    word.clear();
    for (const char byte : fragment.text) {
      AppendUtf8(ByteToCharacter(static_cast<uint8_t>(byte)), &word);
    }
    visit(word, fragment.begin);
  }
  return absl::OkStatus();
}

}  // namespace lorica
