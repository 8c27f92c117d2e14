// The expressions of templates, by recursive descent.
#ifndef LORICA_MODEL_TEXT_JINJA_EXPRESSION_PARSER_H_
#define LORICA_MODEL_TEXT_JINJA_EXPRESSION_PARSER_H_

#include "absl/status/statusor.h"
#include "model/text/jinja/syntax.h"
#include "model/text/jinja/token_stream.h"

namespace lorica::jinja {

// Reads an expression, a tuple only within parentheses.
absl::StatusOr<Expr::Ptr> ParseExpression(TokenStream* tokens);

// Likewise, but leaves `a if b` at the `if`.
absl::StatusOr<Expr::Ptr> ParseUnconditional(TokenStream* tokens);

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_EXPRESSION_PARSER_H_
