// Runs a template's syntax tree.
#ifndef LORICA_MODEL_TEXT_JINJA_INTERPRETER_H_
#define LORICA_MODEL_TEXT_JINJA_INTERPRETER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/jinja/functions.h"
#include "model/text/jinja/syntax.h"
#include "model/text/jinja/value.h"

namespace lorica::jinja {

class Interpreter {
 public:
  // `source`, for places in errors, and `variables`, an object, must outlive
  // it.
  Interpreter(absl::string_view source, const Value& variables);

  // Call it once.
  absl::StatusOr<std::string> Run(const std::vector<Statement>& statements);

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  using Scope = std::map<std::string, Value>;

  Flow Execute(const std::vector<Statement>& statements);
  Flow ExecuteOne(const Statement& statement);
  Flow ExecuteFor(const Statement& statement);
  std::vector<Value> LoopElements(const Statement& statement);
  void Output(const Expr& expr);
  void Assign(const Statement& statement, const Value& value);
  void AssignField(const Statement& statement, const Value& value);

  // The value is where the reference says: in a variable, in the tree or in
  // *scratch. After a failure it is undefined, and `status_` tells.
  const Value& Evaluate(const Expr& expr, Value* scratch);
  Value ValueOf(const Expr& expr);
  const Value& MemberOf(const Expr& expr, Value* scratch);
  Value IndexInto(const Expr& expr);
  Value SliceOf(const Expr& expr);
  Value Call(const Expr& expr);
  Value UnaryOf(const Expr& expr);
  Value BinaryOf(const Expr& expr);
  Value DictOf(const Expr& expr);
  Arguments ArgumentsOf(const Expr& expr);

  // The first failure counts. Returns an undefined value.
  Value Fail(size_t position, absl::string_view message);
  Value Take(size_t position, absl::StatusOr<Value> result);

  absl::string_view source_;
  const Value& variables_;
  std::vector<Scope> scopes_;
  std::string out_;
  int64_t steps_ = 0;
  absl::Status status_;
};

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_INTERPRETER_H_
