#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/text/jinja/expression_parser.h"
#include "model/text/jinja/lexer.h"
#include "model/text/jinja/syntax.h"
#include "model/text/jinja/token_stream.h"
#include "runtime/status_macros.h"

namespace lorica::jinja {
namespace {

class Parser {
 public:
  Parser(absl::string_view source, std::vector<Token> tokens)
      : source_(source), tokens_(source, std::move(tokens)) {}

  // Reads statements up to a tag named in `ends`, whose name is read and
  // returned; up to the end of the template if `ends` is empty.
  absl::StatusOr<std::string> Body(const std::vector<std::string>& ends,
                                   std::vector<Statement>* statements);

 private:
  absl::StatusOr<std::string> Statements(const std::vector<std::string>& ends,
                                         std::vector<Statement>* statements);
  absl::Status BodyUpTo(const char* end, std::vector<Statement>* statements);
  absl::Status Output(size_t position, std::vector<Statement>* statements);
  absl::Status Tag(const std::string& name, size_t position,
                   std::vector<Statement>* statements);
  absl::Status If(Statement* statement);
  absl::Status For(Statement* statement);
  absl::Status Set(Statement* statement);
  absl::Status ExpectBlockEnd();

  absl::string_view source_;
  TokenStream tokens_;
};

absl::StatusOr<std::string> Parser::Body(const std::vector<std::string>& ends,
                                         std::vector<Statement>* statements) {
  LORICA_RETURN_IF_ERROR(tokens_.Enter());
  absl::StatusOr<std::string> end = Statements(ends, statements);
  tokens_.Leave();
  return end;
}

absl::StatusOr<std::string> Parser::Statements(
    const std::vector<std::string>& ends, std::vector<Statement>* statements) {
  while (true) {
    const Token& token = tokens_.Next();
    if (token.kind == TokenKind::kText) {
      Statement statement;
      statement.position = token.position;
      statement.text = token.text;
      statements->push_back(std::move(statement));
    } else if (token.kind == TokenKind::kOutputBegin) {
      LORICA_RETURN_IF_ERROR(Output(token.position, statements));
    } else if (token.kind == TokenKind::kBlockBegin) {
      LORICA_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName());
      for (const std::string& end : ends) {
        if (name == end) {
          return name;
        }
      }
      LORICA_RETURN_IF_ERROR(Tag(name, token.position, statements));
    } else if (ends.empty()) {
      return "";
    } else {
      return tokens_.Unexpected(absl::StrCat("{% ", ends.back(), " %}"));
    }
  }
}

absl::Status Parser::Output(size_t position,
                            std::vector<Statement>* statements) {
  Statement statement;
  statement.kind = StatementKind::kOutput;
  statement.position = position;
  LORICA_ASSIGN_OR_RETURN(statement.value, ParseExpression(&tokens_));
  if (tokens_.Now().kind != TokenKind::kOutputEnd) {
    return tokens_.Unexpected("}}");
  }
  tokens_.Next();
  statements->push_back(std::move(statement));
  return absl::OkStatus();
}

absl::Status Parser::ExpectBlockEnd() {
  if (tokens_.Now().kind != TokenKind::kBlockEnd) {
    return tokens_.Unexpected("%}");
  }
  tokens_.Next();
  return absl::OkStatus();
}

absl::Status Parser::BodyUpTo(const char* end,
                              std::vector<Statement>* statements) {
  LORICA_ASSIGN_OR_RETURN(const std::string found, Body({end}, statements));
  return ExpectBlockEnd();
}

absl::Status Parser::Tag(const std::string& name, size_t position,
                         std::vector<Statement>* statements) {
  Statement statement;
  statement.position = position;
  if (name == "if") {
    LORICA_RETURN_IF_ERROR(If(&statement));
  } else if (name == "for") {
    LORICA_RETURN_IF_ERROR(For(&statement));
  } else if (name == "set") {
    LORICA_RETURN_IF_ERROR(Set(&statement));
  } else if (name == "break" || name == "continue") {
    statement.kind =
        name == "break" ? StatementKind::kBreak : StatementKind::kContinue;
    LORICA_RETURN_IF_ERROR(ExpectBlockEnd());
  } else if (name == "generation") {
    // transformers' mark of what an assistant says; it renders nothing.
    LORICA_RETURN_IF_ERROR(ExpectBlockEnd());
    return BodyUpTo("endgeneration", statements);
  } else {
    return ErrorAt(source_, position,
                   absl::StrCat("{% ", name, " %} is not supported"));
  }
  statements->push_back(std::move(statement));
  return absl::OkStatus();
}

absl::Status Parser::If(Statement* statement) {
  statement->kind = StatementKind::kIf;
  LORICA_ASSIGN_OR_RETURN(statement->value, ParseExpression(&tokens_));
  LORICA_RETURN_IF_ERROR(ExpectBlockEnd());
  LORICA_ASSIGN_OR_RETURN(const std::string end,
                          Body({"elif", "else", "endif"}, &statement->body));
  if (end == "elif") {
    Statement branch;
    branch.position = tokens_.Now().position;
    LORICA_RETURN_IF_ERROR(tokens_.Enter());
    const absl::Status status = If(&branch);
    tokens_.Leave();
    statement->otherwise.push_back(std::move(branch));
    return status;
  }
  LORICA_RETURN_IF_ERROR(ExpectBlockEnd());
  return end == "else" ? BodyUpTo("endif", &statement->otherwise)
                       : absl::OkStatus();
}

absl::Status Parser::For(Statement* statement) {
  statement->kind = StatementKind::kFor;
  do {
    LORICA_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName());
    statement->names.push_back(std::move(name));
  } while (tokens_.AcceptOperator(","));
  LORICA_RETURN_IF_ERROR(tokens_.Expect(TokenKind::kName, "in"));
  LORICA_ASSIGN_OR_RETURN(statement->value, ParseUnconditional(&tokens_));
  if (tokens_.AcceptWord("if")) {
    LORICA_ASSIGN_OR_RETURN(statement->condition, ParseExpression(&tokens_));
  }
  LORICA_RETURN_IF_ERROR(ExpectBlockEnd());
  LORICA_ASSIGN_OR_RETURN(const std::string end,
                          Body({"else", "endfor"}, &statement->body));
  LORICA_RETURN_IF_ERROR(ExpectBlockEnd());
  return end == "else" ? BodyUpTo("endfor", &statement->otherwise)
                       : absl::OkStatus();
}

absl::Status Parser::Set(Statement* statement) {
  statement->kind = StatementKind::kSet;
  LORICA_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName());
  statement->names.push_back(std::move(name));
  if (tokens_.AcceptOperator(".")) {
    statement->kind = StatementKind::kSetField;
    LORICA_ASSIGN_OR_RETURN(std::string field, tokens_.ExpectName());
    statement->names.push_back(std::move(field));
  }
  while (tokens_.AcceptOperator(",")) {
    LORICA_ASSIGN_OR_RETURN(std::string other, tokens_.ExpectName());
    statement->names.push_back(std::move(other));
  }
  if (tokens_.AcceptOperator("=")) {
    LORICA_ASSIGN_OR_RETURN(statement->value, ParseExpression(&tokens_));
    return ExpectBlockEnd();
  }
  if (statement->names.size() > 1) {
    return tokens_.Unexpected("'='");
  }
  statement->kind = StatementKind::kSetBlock;
  LORICA_RETURN_IF_ERROR(ExpectBlockEnd());
  return BodyUpTo("endset", &statement->body);
}

}  // namespace

absl::StatusOr<std::vector<Statement>> Parse(absl::string_view source) {
  LORICA_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  std::vector<Statement> statements;
  const absl::StatusOr<std::string> end =
      Parser(source, std::move(tokens)).Body({}, &statements);
  LORICA_RETURN_IF_ERROR(end.status());
  return statements;
}

}  // namespace lorica::jinja
