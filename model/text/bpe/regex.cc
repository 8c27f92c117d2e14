#include "model/text/bpe/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "model/text/bpe/recent_characters.h"
#include "model/text/bpe/unicode.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Rewrites a pattern from left to right.
class Translator {
 public:
  explicit Translator(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (position_ < pattern_.size()) {
      LORICA_RETURN_IF_ERROR(Next());
    }
    return std::move(out_);
  }

 private:
  absl::string_view Rest() const { return pattern_.substr(position_); }

  void Copy(size_t count) {
    absl::StrAppend(&out_, pattern_.substr(position_, count));
    position_ += count;
  }

  void Replace(size_t count, absl::string_view replacement) {
    absl::StrAppend(&out_, replacement);
    position_ += count;
  }

  absl::Status Refuse(absl::string_view what) const {
    return absl::UnimplementedError(absl::StrCat(
        what, " at byte ", position_, " of the pattern '", pattern_, "'"));
  }

  absl::Status Next() {
    switch (pattern_[position_]) {
      case '\\':
        return Escape();
      case '[':
        if (in_class_) {
          return Refuse("a class inside a class");
        }
        in_class_ = true;
        Copy(absl::StartsWith(Rest(), "[^") ? 2 : 1);
        if (absl::StartsWith(Rest(), "]")) {
          return Refuse("']' as the first character of a class");
        }
        return absl::OkStatus();
      case ']':
        in_class_ = false;
        break;
      case '&':
        if (in_class_ && absl::StartsWith(Rest(), "&&")) {
          return Refuse("an intersection of classes");
        }
        break;
      case '(':
        return in_class_ ? CopyOne() : Group();
      case '{':
        return in_class_ ? CopyOne() : Repeat();
      default:
        break;
    }
    return CopyOne();
  }

  absl::Status CopyOne() {
    Copy(1);
    return absl::OkStatus();
  }

  // \p{L} and \p{N} with the characters that PCRE2 lacks. A negation inside a
  // class is left as it is.
  bool Property(absl::string_view name,
                absl::Span<const CharacterRange> recent) {
    const bool negated = Rest()[1] == 'P';
    if (Rest().substr(2, 3) != absl::StrCat("{", name, "}") ||
        (negated && in_class_)) {
      return false;
    }
    std::string ranges = absl::StrCat("\\p{", name, "}");
    for (const CharacterRange& range : recent) {
      absl::StrAppend(&ranges, "\\x{", absl::Hex(range.first), "}-\\x{",
                      absl::Hex(range.last), "}");
    }
    Replace(5, in_class_ ? ranges
                         : absl::StrCat(negated ? "[^" : "[", ranges, "]"));
    return true;
  }

  absl::Status Escape() {
    if (position_ + 1 == pattern_.size()) {
      return Refuse("a lone backslash");
    }
    const char c = pattern_[position_ + 1];
    switch (c) {
      // PCRE2's \s also takes U+180E, its \w lacks marks, its \v and \h are
      // kinds of space.
      case 's':
        Replace(2, "\\p{White_Space}");
        return absl::OkStatus();
      case 'S':
        Replace(2, "\\P{White_Space}");
        return absl::OkStatus();
      case 'w':
        Replace(2, in_class_ ? kWord : absl::StrCat("[", kWord, "]"));
        return absl::OkStatus();
      case 'W':
        if (in_class_) {
          return Refuse("\\W in a class");
        }
        Replace(2, absl::StrCat("[^", kWord, "]"));
        return absl::OkStatus();
      case 'p':
      case 'P':
        if (Property("L", kRecentLetters) || Property("N", kRecentNumbers)) {
          return absl::OkStatus();
        }
        break;
      case 'v':
        Replace(2, "\\x0b");
        return absl::OkStatus();
      case 'u':
        if (Rest().size() < 6) {
          return Refuse("\\u without four digits");
        }
        Replace(6, absl::StrCat("\\x{", Rest().substr(2, 4), "}"));
        return absl::OkStatus();
      default:
        break;
    }
    const bool common =
        absl::string_view("dDpPrntfaexAz").find(c) != absl::string_view::npos;
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) && !common) {
      return Refuse(absl::StrCat("\\", absl::string_view(&c, 1)));
    }
    Copy(2);
    if ((c == 'p' || c == 'P' || c == 'x') && absl::StartsWith(Rest(), "{")) {
      const size_t close = Rest().find('}');
      if (close == absl::string_view::npos) {
        return Refuse("'{' without '}'");
      }
      Copy(close + 1);
    }
    return absl::OkStatus();
  }

  // Lookarounds, plain and named groups read alike; options do not: Ruby's m
  // is PCRE2's s, and an option without a group reaches differently far.
  absl::Status Group() {
    if (!absl::StartsWith(Rest(), "(?")) {
      if (absl::StartsWith(Rest(), "(*")) {
        return Refuse("'(*'");
      }
      return CopyOne();
    }
    for (const char* plain : {"(?:", "(?=", "(?!", "(?>", "(?<"}) {
      if (absl::StartsWith(Rest(), plain)) {
        Copy(3);
        return absl::OkStatus();
      }
    }
    const size_t end = Rest().find_first_of(":)");
    const absl::string_view options = Rest().substr(2, end - 2);
    const bool known =
        end != absl::string_view::npos &&
        options.find_first_not_of("im-") == absl::string_view::npos;
    if (!known || (Rest()[end] == ')' && position_ != 0)) {
      return Refuse("an unsupported group");
    }
    out_ += "(?";
    for (const char option : options) {
      out_ += option == 'm' ? 's' : option;
    }
    position_ += end;
    return CopyOne();
  }

  // In Ruby {n,m}+ repeats the repetition and {,m} starts at zero.
  absl::Status Repeat() {
    const size_t close = Rest().find('}');
    const absl::string_view body =
        close == absl::string_view::npos ? "" : Rest().substr(1, close - 1);
    if (body.empty() || body[0] == ',' ||
        body.find_first_not_of("0123456789,") != absl::string_view::npos) {
      return Refuse("'{' that is not {n}, {n,} or {n,m}");
    }
    if (close + 1 < Rest().size() && Rest()[close + 1] == '+') {
      return Refuse("{n,m}+");
    }
    Copy(close + 1);
    return absl::OkStatus();
  }

  static constexpr char kWord[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";

  absl::string_view pattern_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[160];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern) {
  return Translator(pattern).Run();
}

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
};

void Regex::CodeDeleter::operator()(Code* code) const {
  pcre2_jit_stack_free(code->stack);
  pcre2_match_context_free(code->context);
  pcre2_code_free(code->code);
  delete code;
}

Regex::Regex(std::unique_ptr<Code, CodeDeleter> code)
    : code_(std::move(code)) {}

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  LORICA_RETURN_IF_ERROR(CheckUtf8(pattern));
  LORICA_ASSIGN_OR_RETURN(const std::string translated,
                          TranslateOniguruma(pattern));
  std::unique_ptr<Code, CodeDeleter> code(new Code);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code->code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the pattern '", pattern, "' does not compile: ", ErrorText(error),
        " at byte ", offset, " of '", translated, "'"));
  }
  // Without just-in-time compilation the same matches are found, slower.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  code->context = pcre2_match_context_create(nullptr);
  code->stack = pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr);
  pcre2_jit_stack_assign(code->context, nullptr, code->stack);
  return Regex(std::move(code));
}

absl::Status Regex::FindAll(absl::string_view text,
                            std::vector<ByteRange>* matches) const {
  matches->clear();
  pcre2_match_data* data =
      pcre2_match_data_create_from_pattern(code_->code, nullptr);
  std::optional<size_t> last_end;
  size_t from = 0;
  int result = 0;
  while (from <= text.size()) {
    result = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                         text.size(), from, PCRE2_NO_UTF_CHECK, data,
                         code_->context);
    if (result < 0) {
      break;
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
    const ByteRange match{ends[0], ends[1]};
    if (match.begin < match.end) {
      matches->push_back(match);
      from = match.end;
    } else {
      // An empty match counts unless the previous match ended there.
      if (last_end != match.end) {
        matches->push_back(match);
      }
      from = match.end;
      if (from == text.size()) {
        break;
      }
      NextCodePoint(text, &from);
    }
    last_end = match.end;
  }
  pcre2_match_data_free(data);
  if (result < 0 && result != PCRE2_ERROR_NOMATCH) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a pattern of the tokenizer fails on a text of ",
                     text.size(), " bytes: ", ErrorText(result)));
  }
  return absl::OkStatus();
}

}  // namespace lorica
