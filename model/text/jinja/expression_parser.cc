#include "model/text/jinja/expression_parser.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status_macros.h"

namespace lorica::jinja {
namespace {

using ExprOr = absl::StatusOr<Expr::Ptr>;

// Binary operators from the loosest to the tightest binding. `and`, `or`,
// `not`, comparisons and filters are parsed by themselves.
constexpr absl::string_view kOperators[][4] = {
    {"+", "-"}, {"~"}, {"*", "/", "//", "%"}};
constexpr size_t kNumLevels = std::size(kOperators);

// Trees are walked, and destroyed, recursively.
constexpr int kMaxHeight = 300;

Expr::Ptr Make(ExprKind kind, size_t position, std::string name = "") {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->position = position;
  expr->name = std::move(name);
  return expr;
}

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream* tokens) : tokens_(*tokens) {}

  ExprOr Expression();
  ExprOr Or();

 private:
  // Makes `child`, perhaps null, the last argument of `parent`.
  absl::Status Adopt(Expr* parent, Expr::Ptr child) {
    LORICA_RETURN_IF_ERROR(Raise(parent, child.get()));
    parent->args.push_back(std::move(child));
    return absl::OkStatus();
  }
  absl::Status Raise(Expr* parent, const Expr* child) const {
    if (child != nullptr) {
      parent->height = std::max(parent->height, child->height + 1);
    }
    return parent->height > kMaxHeight
               ? tokens_.ErrorHere("an expression of too many parts")
               : absl::OkStatus();
  }
  ExprOr MakeBinary(Expr::Ptr left, const Token& op, Expr::Ptr right) {
    Expr::Ptr binary = Make(ExprKind::kBinary, op.position, op.text);
    LORICA_RETURN_IF_ERROR(Adopt(binary.get(), std::move(left)));
    LORICA_RETURN_IF_ERROR(Adopt(binary.get(), std::move(right)));
    return binary;
  }

  ExprOr Conditional();
  ExprOr And();
  ExprOr Not();
  ExprOr Comparison();
  ExprOr Binary(size_t level);
  ExprOr Unary();
  ExprOr Postfix(Expr::Ptr value);
  ExprOr Subscript(Expr::Ptr value);
  absl::Status Arguments(Expr* call);
  ExprOr Filters(Expr::Ptr value);
  ExprOr Test(Expr::Ptr value);
  ExprOr Primary();
  ExprOr Number();
  ExprOr Literal(Value value);
  ExprOr Items(absl::string_view close);

  TokenStream& tokens_;
};

// Whatever nests passes here.
ExprOr ExpressionParser::Expression() {
  LORICA_RETURN_IF_ERROR(tokens_.Enter());
  ExprOr value = Conditional();
  tokens_.Leave();
  return value;
}

ExprOr ExpressionParser::Conditional() {
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr value, Or());
  if (!tokens_.IsWord("if")) {
    return value;
  }
  Expr::Ptr conditional = Make(ExprKind::kConditional, tokens_.Next().position);
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr condition, Or());
  Expr::Ptr otherwise;
  if (tokens_.AcceptWord("else")) {
    LORICA_ASSIGN_OR_RETURN(otherwise, Expression());
  }
  LORICA_RETURN_IF_ERROR(Adopt(conditional.get(), std::move(condition)));
  LORICA_RETURN_IF_ERROR(Adopt(conditional.get(), std::move(value)));
  LORICA_RETURN_IF_ERROR(Adopt(conditional.get(), std::move(otherwise)));
  return conditional;
}

ExprOr ExpressionParser::Or() {
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr left, And());
  while (tokens_.IsWord("or")) {
    const Token op = tokens_.Next();
    LORICA_ASSIGN_OR_RETURN(Expr::Ptr right, And());
    LORICA_ASSIGN_OR_RETURN(left,
                            MakeBinary(std::move(left), op, std::move(right)));
  }
  return left;
}

ExprOr ExpressionParser::And() {
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr left, Not());
  while (tokens_.IsWord("and")) {
    const Token op = tokens_.Next();
    LORICA_ASSIGN_OR_RETURN(Expr::Ptr right, Not());
    LORICA_ASSIGN_OR_RETURN(left,
                            MakeBinary(std::move(left), op, std::move(right)));
  }
  return left;
}

ExprOr ExpressionParser::Not() {
  if (!tokens_.IsWord("not")) {
    return Comparison();
  }
  Expr::Ptr unary = Make(ExprKind::kUnary, tokens_.Next().position, "not");
  LORICA_RETURN_IF_ERROR(tokens_.Enter());
  ExprOr value = Not();
  tokens_.Leave();
  LORICA_RETURN_IF_ERROR(value.status());
  LORICA_RETURN_IF_ERROR(Adopt(unary.get(), *std::move(value)));
  return unary;
}

ExprOr ExpressionParser::Comparison() {
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr left, Binary(0));
  Token op = tokens_.Now();
  const bool compares = op.kind == TokenKind::kOperator &&
                        (op.text == "==" || op.text == "!=" || op.text == "<" ||
                         op.text == "<=" || op.text == ">" || op.text == ">=");
  if (tokens_.AcceptWord("not")) {
    op.text = "not in";
    LORICA_RETURN_IF_ERROR(tokens_.Expect(TokenKind::kName, "in"));
  } else if (compares || tokens_.IsWord("in")) {
    tokens_.Next();
  } else {
    return left;
  }
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr right, Binary(0));
  return MakeBinary(std::move(left), op, std::move(right));
}

ExprOr ExpressionParser::Binary(size_t level) {
  if (level == kNumLevels) {
    return Unary();
  }
  const auto here = [&](absl::string_view name) {
    return !name.empty() && tokens_.IsOperator(name);
  };
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr left, Binary(level + 1));
  while (std::any_of(std::begin(kOperators[level]), std::end(kOperators[level]),
                     here)) {
    const Token op = tokens_.Next();
    LORICA_ASSIGN_OR_RETURN(Expr::Ptr right, Binary(level + 1));
    LORICA_ASSIGN_OR_RETURN(left,
                            MakeBinary(std::move(left), op, std::move(right)));
  }
  return left;
}

ExprOr ExpressionParser::Unary() {
  Expr::Ptr unary;
  if (tokens_.IsOperator("-") || tokens_.IsOperator("+")) {
    const Token sign = tokens_.Next();
    unary = Make(ExprKind::kUnary, sign.position, sign.text);
  }
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr primary, Primary());
  LORICA_ASSIGN_OR_RETURN(Expr::Ptr value, Postfix(std::move(primary)));
  if (unary != nullptr) {
    LORICA_RETURN_IF_ERROR(Adopt(unary.get(), std::move(value)));
    value = std::move(unary);
  }
  return Filters(std::move(value));
}

ExprOr ExpressionParser::Postfix(Expr::Ptr value) {
  while (true) {
    const size_t position = tokens_.Now().position;
    if (tokens_.AcceptOperator(".")) {
      Expr::Ptr attribute = Make(ExprKind::kAttribute, position);
      LORICA_ASSIGN_OR_RETURN(attribute->name, tokens_.ExpectName());
      LORICA_RETURN_IF_ERROR(Adopt(attribute.get(), std::move(value)));
      value = std::move(attribute);
    } else if (tokens_.AcceptOperator("[")) {
      LORICA_ASSIGN_OR_RETURN(value, Subscript(std::move(value)));
    } else if (tokens_.AcceptOperator("(")) {
      Expr::Ptr call = Make(ExprKind::kCall, position);
      LORICA_RETURN_IF_ERROR(Adopt(call.get(), std::move(value)));
      LORICA_RETURN_IF_ERROR(Arguments(call.get()));
      value = std::move(call);
    } else {
      return value;
    }
  }
}

// Behind "[": an index or a slice.
ExprOr ExpressionParser::Subscript(Expr::Ptr value) {
  Expr::Ptr index = Make(ExprKind::kIndex, tokens_.Now().position);
  LORICA_RETURN_IF_ERROR(Adopt(index.get(), std::move(value)));
  do {
    Expr::Ptr part;
    if (!tokens_.IsOperator(":") && !tokens_.IsOperator("]")) {
      LORICA_ASSIGN_OR_RETURN(part, Expression());
    }
    LORICA_RETURN_IF_ERROR(Adopt(index.get(), std::move(part)));
  } while (tokens_.AcceptOperator(":"));
  const size_t parts = index->args.size() - 1;
  if (parts > 3 || (parts == 1 && index->args[1] == nullptr)) {
    return tokens_.ErrorHere("neither an index nor a slice");
  }
  if (parts > 1) {
    index->kind = ExprKind::kSlice;
    index->args.resize(4);
  }
  LORICA_RETURN_IF_ERROR(tokens_.Expect(TokenKind::kOperator, "]"));
  return index;
}

// Behind "(": positional and named arguments.
absl::Status ExpressionParser::Arguments(Expr* call) {
  while (!tokens_.AcceptOperator(")")) {
    const bool named = tokens_.Now().kind == TokenKind::kName &&
                       tokens_.Ahead().kind == TokenKind::kOperator &&
                       tokens_.Ahead().text == "=";
    std::string name;
    if (named) {
      name = tokens_.Next().text;
      tokens_.Next();
    }
    LORICA_ASSIGN_OR_RETURN(Expr::Ptr value, Expression());
    if (named) {
      LORICA_RETURN_IF_ERROR(Raise(call, value.get()));
      call->named.emplace_back(std::move(name), std::move(value));
    } else {
      LORICA_RETURN_IF_ERROR(Adopt(call, std::move(value)));
    }
    if (!tokens_.AcceptOperator(",") && !tokens_.IsOperator(")")) {
      return tokens_.Unexpected("',' or ')'");
    }
  }
  return absl::OkStatus();
}

ExprOr ExpressionParser::Filters(Expr::Ptr value) {
  while (true) {
    const size_t position = tokens_.Now().position;
    if (tokens_.AcceptOperator("|")) {
      Expr::Ptr filter = Make(ExprKind::kFilter, position);
      LORICA_ASSIGN_OR_RETURN(filter->name, tokens_.ExpectName());
      LORICA_RETURN_IF_ERROR(Adopt(filter.get(), std::move(value)));
      if (tokens_.AcceptOperator("(")) {
        LORICA_RETURN_IF_ERROR(Arguments(filter.get()));
      }
      value = std::move(filter);
    } else if (tokens_.AcceptWord("is")) {
      LORICA_ASSIGN_OR_RETURN(value, Test(std::move(value)));
    } else {
      return value;
    }
  }
}

// Behind "is".
ExprOr ExpressionParser::Test(Expr::Ptr value) {
  const size_t position = tokens_.Now().position;
  const bool negated = tokens_.AcceptWord("not");
  Expr::Ptr test = Make(ExprKind::kTest, position);
  LORICA_ASSIGN_OR_RETURN(test->name, tokens_.ExpectName());
  LORICA_RETURN_IF_ERROR(Adopt(test.get(), std::move(value)));
  const TokenKind next = tokens_.Now().kind;
  if (tokens_.AcceptOperator("(")) {
    LORICA_RETURN_IF_ERROR(Arguments(test.get()));
  } else if (next == TokenKind::kString || next == TokenKind::kInteger) {
    LORICA_ASSIGN_OR_RETURN(Expr::Ptr argument, Primary());
    LORICA_RETURN_IF_ERROR(Adopt(test.get(), std::move(argument)));
  }
  if (!negated) {
    return test;
  }
  Expr::Ptr unary = Make(ExprKind::kUnary, position, "not");
  LORICA_RETURN_IF_ERROR(Adopt(unary.get(), std::move(test)));
  return unary;
}

ExprOr ExpressionParser::Literal(Value value) {
  Expr::Ptr literal = Make(ExprKind::kLiteral, tokens_.Now().position);
  literal->value = std::move(value);
  return literal;
}

ExprOr ExpressionParser::Primary() {
  const Token& token = tokens_.Now();
  switch (token.kind) {
    case TokenKind::kName:
      tokens_.Next();
      if (token.text == "true" || token.text == "True") {
        return Literal(true);
      }
      if (token.text == "false" || token.text == "False") {
        return Literal(false);
      }
      if (token.text == "none" || token.text == "None") {
        return Literal(nullptr);
      }
      return Make(ExprKind::kName, token.position, token.text);
    case TokenKind::kString: {
      std::string text;
      while (tokens_.Now().kind == TokenKind::kString) {
        text += tokens_.Next().text;
      }
      return Literal(text);
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return Number();
    default:
      break;
  }
  for (const auto& [open, close] :
       {std::pair("(", ")"), std::pair("[", "]"), std::pair("{", "}")}) {
    if (tokens_.AcceptOperator(open)) {
      return Items(close);
    }
  }
  return tokens_.Unexpected("a value");
}

ExprOr ExpressionParser::Number() {
  const Token& token = tokens_.Now();
  int64_t integer = 0;
  double number = 0;
  if (token.kind == TokenKind::kInteger &&
      absl::SimpleAtoi(token.text, &integer)) {
    tokens_.Next();
    return Literal(integer);
  }
  if (token.kind == TokenKind::kFloat &&
      absl::SimpleAtod(token.text, &number)) {
    tokens_.Next();
    return Literal(number);
  }
  return tokens_.ErrorHere("a number out of range");
}

// Behind a bracket: a list, a dict, a tuple or a value in parentheses.
ExprOr ExpressionParser::Items(absl::string_view close) {
  const bool dict = close == "}";
  Expr::Ptr items =
      Make(dict ? ExprKind::kDict : ExprKind::kList, tokens_.Now().position);
  bool comma = false;
  while (!tokens_.AcceptOperator(close)) {
    LORICA_ASSIGN_OR_RETURN(Expr::Ptr item, Expression());
    LORICA_RETURN_IF_ERROR(Adopt(items.get(), std::move(item)));
    if (dict) {
      LORICA_RETURN_IF_ERROR(tokens_.Expect(TokenKind::kOperator, ":"));
      LORICA_ASSIGN_OR_RETURN(Expr::Ptr value, Expression());
      LORICA_RETURN_IF_ERROR(Adopt(items.get(), std::move(value)));
    }
    const bool more = tokens_.AcceptOperator(",");
    comma = comma || more;
    if (!more && !tokens_.IsOperator(close)) {
      return tokens_.Unexpected(absl::StrCat("',' or '", close, "'"));
    }
  }
  if (close == ")" && items->args.size() == 1 && !comma) {
    return std::move(items->args[0]);
  }
  return items;
}

}  // namespace

absl::StatusOr<Expr::Ptr> ParseExpression(TokenStream* tokens) {
  return ExpressionParser(tokens).Expression();
}

absl::StatusOr<Expr::Ptr> ParseUnconditional(TokenStream* tokens) {
  return ExpressionParser(tokens).Or();
}

}  // namespace lorica::jinja
