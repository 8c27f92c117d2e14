// A Jinja template as tokens. White space is controlled as transformers sets it
// for chat templates: trim_blocks and lstrip_blocks are on.
#ifndef LORICA_MODEL_TEXT_JINJA_LEXER_H_
#define LORICA_MODEL_TEXT_JINJA_LEXER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorica::jinja {

enum class TokenKind : uint8_t {
  kText,         // Outside of tags.
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kBlockBegin,   // {%
  kBlockEnd,     // %}
  kName,
  kInteger,
  kFloat,
  kString,  // Its value, escapes resolved.
  kOperator,
  kEnd,  // Of the template.
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  size_t position = 0;  // Of its first byte in the template.
};

// An error at a place of the template, as "line 3, column 14: message".
absl::Status ErrorAt(absl::string_view source, size_t position,
                     absl::string_view message);

// `source` has newlines as \n only. The last token is kEnd.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_LEXER_H_
