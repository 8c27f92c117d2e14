// The tokens of a template, read one by one.
#ifndef LORICA_MODEL_TEXT_JINJA_TOKEN_STREAM_H_
#define LORICA_MODEL_TEXT_JINJA_TOKEN_STREAM_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/text/jinja/lexer.h"

namespace lorica::jinja {

class TokenStream {
 public:
  // `tokens` end with kEnd, at which the stream stays.
  TokenStream(absl::string_view source, std::vector<Token> tokens)
      : source_(source), tokens_(std::move(tokens)) {}

  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead() const {
    return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_];
  }
  const Token& Next() {
    const Token& token = Now();
    at_ += at_ + 1 < tokens_.size() ? 1 : 0;
    return token;
  }

  bool Is(TokenKind kind, absl::string_view text) const {
    return Now().kind == kind && Now().text == text;
  }
  bool IsOperator(absl::string_view text) const {
    return Is(TokenKind::kOperator, text);
  }
  bool IsWord(absl::string_view text) const {
    return Is(TokenKind::kName, text);
  }
  // Whether the token is there; if so it is read.
  bool AcceptOperator(absl::string_view text) {
    return IsOperator(text) ? (Next(), true) : false;
  }
  bool AcceptWord(absl::string_view text) {
    return IsWord(text) ? (Next(), true) : false;
  }

  absl::Status Expect(TokenKind kind, absl::string_view text) {
    if (!Is(kind, text)) {
      return Unexpected(absl::StrCat("'", text, "'"));
    }
    Next();
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> ExpectName() {
    if (Now().kind != TokenKind::kName) {
      return Unexpected("a name");
    }
    return Next().text;
  }

  absl::Status ErrorHere(absl::string_view message) const {
    return ErrorAt(source_, Now().position, message);
  }
  absl::Status Unexpected(absl::string_view wanted) const {
    return ErrorHere(
        absl::StrCat("expected ", wanted, " in place of '", Now().text, "'"));
  }

  // Fails where statements and expressions nest more deeply than recursion
  // should go. Call Leave after each Enter that did not fail.
  absl::Status Enter() {
    constexpr int kMaxDepth = 100;
    if (depth_ == kMaxDepth) {
      return ErrorHere("nested too deeply");
    }
    ++depth_;
    return absl::OkStatus();
  }
  void Leave() { --depth_; }

 private:
  absl::string_view source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_TOKEN_STREAM_H_
