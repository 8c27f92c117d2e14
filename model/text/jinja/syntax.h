// The syntax tree of a template.
#ifndef LORICA_MODEL_TEXT_JINJA_SYNTAX_H_
#define LORICA_MODEL_TEXT_JINJA_SYNTAX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/jinja/value.h"

namespace lorica::jinja {

enum class ExprKind : uint8_t {
  kLiteral,      // value
  kName,         // name
  kList,         // [args...], tuples too
  kDict,         // {args[0]: args[1], ...}
  kAttribute,    // args[0].name
  kIndex,        // args[0][args[1]]
  kSlice,        // args[0][args[1]:args[2]:args[3]], null where left out
  kCall,         // args[0](args[1]..., named...)
  kFilter,       // args[0] | name(args[1]..., named...)
  kTest,         // args[0] is name(args[1]...)
  kUnary,        // name args[0], name one of - + not
  kBinary,       // args[0] name args[1]
  kConditional,  // args[1] if args[0] else args[2], null where left out
};

struct Expr {
  using Ptr = std::unique_ptr<Expr>;

  ExprKind kind = ExprKind::kLiteral;
  size_t position = 0;
  int height = 1;  // Of the tree from here.
  std::string name;
  Value value;
  std::vector<Ptr> args;
  std::vector<std::pair<std::string, Ptr>> named;
};

enum class StatementKind : uint8_t {
  kText,      // text
  kOutput,    // {{ value }}
  kIf,        // if value: body, else: otherwise
  kFor,       // for names in value if condition: body, else: otherwise
  kSet,       // set names = value
  kSetField,  // set names[0].names[1] = value
  kSetBlock,  // set names[0], to what body renders
  kBreak,
  kContinue,
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  size_t position = 0;
  std::string text;
  std::vector<std::string> names;
  Expr::Ptr value;
  Expr::Ptr condition;
  std::vector<Statement> body;
  std::vector<Statement> otherwise;
};

// Refuses, with its place, syntax that is wrong and syntax that is not here.
absl::StatusOr<std::vector<Statement>> Parse(absl::string_view source);

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_SYNTAX_H_
