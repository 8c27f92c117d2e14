#include "model/text/jinja/lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/text/bpe/unicode.h"
#include "runtime/status_macros.h"

namespace lorica::jinja {
namespace {

constexpr char kSpace[] = " \t\n\r\f\v";

bool IsNameStart(char c) {
  return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_';
}

bool IsDigit(char c) {
  return absl::ascii_isdigit(static_cast<unsigned char>(c));
}

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    if (absl::EndsWith(source_, "\n")) {
      source_.remove_suffix(1);
    }
    while (position_ < source_.size()) {
      LORICA_RETURN_IF_ERROR(TextAndTag());
    }
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::string_view Rest() const { return source_.substr(position_); }

  absl::Status Error(absl::string_view message) const {
    return ErrorAt(source_, position_, message);
  }

  void Add(TokenKind kind, absl::string_view text) {
    tokens_.push_back({kind, std::string(text), position_});
  }

  bool IsTag(size_t open) const {
    const absl::string_view rest = source_.substr(open, 2);
    return rest == "{{" || rest == "{%" || rest == "{#";
  }

  // The text up to the next tag, and the tag.
  absl::Status TextAndTag() {
    size_t open = source_.find('{', position_);
    while (open != absl::string_view::npos && !IsTag(open)) {
      open = source_.find('{', open + 1);
    }
    if (open == absl::string_view::npos) {
      Add(TokenKind::kText, Rest());
      position_ = source_.size();
      return absl::OkStatus();
    }
    const char tag = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
    absl::string_view text = source_.substr(position_, open - position_);
    if (sign == '-') {
      text = text.substr(0, text.find_last_not_of(kSpace) + 1);
    } else if (tag != '{' && sign != '+') {
      text = WithoutIndent(text);
    }
    if (!text.empty()) {
      Add(TokenKind::kText, text);
    }
    position_ = open;
    return tag == '#' ? Comment() : Tag(tag, sign == '-' || sign == '+');
  }

  // Without the white space between the start of its last line and its end.
  absl::string_view WithoutIndent(absl::string_view text) const {
    const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0.
    const bool blank =
        text.find_first_not_of(kSpace, line) == absl::string_view::npos;
    return blank && (line > 0 || line_starts_) ? text.substr(0, line) : text;
  }

  // Moves behind a tag's end; its sign and kind say what space goes with it.
  void Skip(size_t end, char sign, bool block) {
    position_ = end;
    if (sign == '-') {
      position_ =
          std::min(source_.find_first_not_of(kSpace, end), source_.size());
    } else if (block && sign != '+' && absl::StartsWith(Rest(), "\n")) {
      ++position_;
    }
    line_starts_ = position_ > end && source_[position_ - 1] == '\n';
  }

  absl::Status Comment() {
    const size_t close = source_.find("#}", position_ + 2);
    if (close == absl::string_view::npos) {
      return Error("a comment without an end");
    }
    const bool strip = close > position_ + 2 && source_[close - 1] == '-';
    Skip(close + 2, strip ? '-' : '\0', true);
    return absl::OkStatus();
  }

  absl::Status Tag(char tag, bool has_sign) {
    const bool block = tag == '%';
    const absl::string_view close = block ? "%}" : "}}";
    Add(block ? TokenKind::kBlockBegin : TokenKind::kOutputBegin, "");
    const size_t begin = position_;
    position_ += has_sign ? 3 : 2;
    int depth = 0;  // Of brackets: in a dict, }} is no end.
    while (true) {
      position_ = std::min(source_.find_first_not_of(kSpace, position_),
                           source_.size());
      if (position_ == source_.size()) {
        return ErrorAt(source_, begin, "a tag without an end");
      }
      const char c = source_[position_];
      const bool sign = (c == '-' || (block && c == '+')) &&
                        absl::StartsWith(Rest().substr(1), close);
      if (depth == 0 && (sign || absl::StartsWith(Rest(), close))) {
        Add(block ? TokenKind::kBlockEnd : TokenKind::kOutputEnd, "");
        Skip(position_ + (sign ? 3 : 2), sign ? c : '\0', block);
        return absl::OkStatus();
      }
      LORICA_RETURN_IF_ERROR(ExpressionToken(&depth));
    }
  }

  absl::Status ExpressionToken(int* depth) {
    const char c = source_[position_];
    if (IsNameStart(c)) {
      size_t end = position_;
      while (end < source_.size() &&
             (IsNameStart(source_[end]) || IsDigit(source_[end]))) {
        ++end;
      }
      return Take(TokenKind::kName, end - position_);
    }
    if (IsDigit(c)) {
      return Number();
    }
    if (c == '\'' || c == '"') {
      return String(c);
    }
    for (const absl::string_view two : {"==", "!=", "<=", ">=", "//", "**"}) {
      if (absl::StartsWith(Rest(), two)) {
        return Take(TokenKind::kOperator, 2);
      }
    }
    if (!absl::StrContains("+-*/%~<>=.:,()[]{}|", Rest().substr(0, 1))) {
      return Error("an unexpected character");
    }
    *depth += c == '(' || c == '[' || c == '{' ? 1 : 0;
    *depth -= c == ')' || c == ']' || c == '}' ? 1 : 0;
    return Take(TokenKind::kOperator, 1);
  }

  absl::Status Take(TokenKind kind, size_t length) {
    Add(kind, Rest().substr(0, length));
    position_ += length;
    return absl::OkStatus();
  }

  absl::Status Number() {
    const auto digits = [&](size_t from) {
      while (from < source_.size() && IsDigit(source_[from])) {
        ++from;
      }
      return from;
    };
    const size_t end = digits(position_);
    const bool fraction = end + 1 < source_.size() && source_[end] == '.' &&
                          IsDigit(source_[end + 1]);
    return fraction ? Take(TokenKind::kFloat, digits(end + 1) - position_)
                    : Take(TokenKind::kInteger, end - position_);
  }

  absl::Status String(char quote) {
    std::string value;
    size_t i = position_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] != '\\') {
        value.push_back(source_[i++]);
        continue;
      }
      const size_t length = Escape(i, &value);
      if (length == 0) {
        return Error("an escape in a string that is not understood");
      }
      i += length;
    }
    if (i >= source_.size()) {
      return Error("a string without an end");
    }
    Add(TokenKind::kString, value);
    position_ = i + 1;
    return absl::OkStatus();
  }

  // Appends what the backslash at `at` stands for, as in Python. Returns the
  // bytes read, or 0.
  size_t Escape(size_t at, std::string* value) const {
    constexpr absl::string_view kFrom = "abfnrtv\\'\"";
    constexpr absl::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
    const char c = at + 1 < source_.size() ? source_[at + 1] : '\0';
    const size_t simple = kFrom.find(c);
    if (simple != absl::string_view::npos) {
      value->push_back(kTo[simple]);
      return 2;
    }
    if (c == '\n') {
      return 2;
    }
    if (c == 'x' || c == 'u') {
      const size_t digits = c == 'x' ? 2 : 4;
      const absl::string_view hex =
          source_.substr(std::min(at + 2, source_.size()), digits);
      uint32_t code = 0;
      if (hex.size() != digits || !absl::SimpleHexAtoi(hex, &code) ||
          (code >= 0xD800 && code < 0xE000)) {
        return 0;
      }
      AppendUtf8(code, value);
      return 2 + digits;
    }
    if (IsDigit(c) || c == 'N' || c == 'U' || c == '\0') {
      return 0;
    }
    value->push_back('\\');
    return 1;
  }

  absl::string_view source_;
  size_t position_ = 0;
  bool line_starts_ = true;  // The text after the last tag begins a line.
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status ErrorAt(absl::string_view source, size_t position,
                     absl::string_view message) {
  const absl::string_view before = source.substr(0, position);
  const size_t line = before.rfind('\n') + 1;  // npos + 1 is 0.
  return absl::InvalidArgumentError(
      absl::StrCat("chat template, line ",
                   1 + std::count(before.begin(), before.end(), '\n'),
                   ", column ", before.size() - line + 1, ": ", message));
}

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  return Lexer(source).Run();
}

}  // namespace lorica::jinja
