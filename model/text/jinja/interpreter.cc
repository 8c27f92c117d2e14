#include "model/text/jinja/interpreter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/text/jinja/arithmetic.h"
#include "model/text/jinja/lexer.h"
#include "runtime/check.h"

namespace lorica::jinja {
namespace {

// Far beyond any conversation; templates are as untrusted as weights.
constexpr int64_t kMaxSteps = 1'000'000;
constexpr int64_t kLoopSteps = 10;  // What a turn of a loop costs.
constexpr size_t kMaxOutput = 256 << 20;
constexpr char kEndless[] = "the template does not come to an end";

}  // namespace

Interpreter::Interpreter(absl::string_view source, const Value& variables)
    : source_(source), variables_(variables), scopes_(1) {}

absl::StatusOr<std::string> Interpreter::Run(
    const std::vector<Statement>& statements) {
  Execute(statements);
  if (!status_.ok()) {
    return status_;
  }
  return std::move(out_);
}

Value Interpreter::Fail(size_t position, absl::string_view message) {
  if (status_.ok()) {
    status_ = ErrorAt(source_, position, message);
  }
  return Undefined();
}

Value Interpreter::Take(size_t position, absl::StatusOr<Value> result) {
  return result.ok() ? *std::move(result)
                     : Fail(position, result.status().message());
}

Interpreter::Flow Interpreter::Execute(
    const std::vector<Statement>& statements) {
  for (const Statement& statement : statements) {
    const Flow flow = ExecuteOne(statement);
    if (!status_.ok()) {
      return Flow::kBreak;
    }
    if (flow != Flow::kNext) {
      return flow;
    }
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteOne(const Statement& statement) {
  if (++steps_ > kMaxSteps || out_.size() > kMaxOutput) {
    Fail(statement.position, kEndless);
    return Flow::kBreak;
  }
  switch (statement.kind) {
    case StatementKind::kText:
      out_ += statement.text;
      break;
    case StatementKind::kOutput:
      Output(*statement.value);
      break;
    case StatementKind::kIf:
      return Execute(IsTrue(ValueOf(*statement.value)) ? statement.body
                                                       : statement.otherwise);
    case StatementKind::kFor:
      return ExecuteFor(statement);
    case StatementKind::kSet:
      Assign(statement, ValueOf(*statement.value));
      break;
    case StatementKind::kSetField:
      AssignField(statement, ValueOf(*statement.value));
      break;
    case StatementKind::kSetBlock: {
      std::string before;
      before.swap(out_);
      scopes_.emplace_back();
      const Flow flow = Execute(statement.body);
      scopes_.pop_back();
      before.swap(out_);
      scopes_.back()[statement.names[0]] = before;
      return flow;
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

void Interpreter::Output(const Expr& expr) {
  Value scratch;
  const Value& value = Evaluate(expr, &scratch);
  const std::optional<std::string> text = ToText(value);
  if (text.has_value()) {
    out_ += *text;
  } else {
    Fail(expr.position,
         absl::StrCat("an ", value.type_name(),
                      " is put out, which has no text here; tojson has one"));
  }
}

// Binds the names of a `set` or `for` to a value, or to its elements.
void Interpreter::Assign(const Statement& statement, const Value& value) {
  if (statement.names.size() == 1) {
    scopes_.back()[statement.names[0]] = value;
    return;
  }
  if (!value.is_array() || value.size() != statement.names.size()) {
    Fail(statement.position,
         absl::StrCat("the value is not a list of ", statement.names.size()));
    return;
  }
  for (size_t i = 0; i < statement.names.size(); ++i) {
    scopes_.back()[statement.names[i]] = value[i];
  }
}

void Interpreter::AssignField(const Statement& statement, const Value& value) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto it = scope->find(statement.names[0]);
    if (it != scope->end() && it->second.is_object()) {
      it->second[statement.names[1]] = value;
      return;
    }
  }
  Fail(statement.position,
       absl::StrCat("'", statement.names[0], "' is not a namespace"));
}

std::vector<Value> Interpreter::LoopElements(const Statement& statement) {
  absl::StatusOr<std::vector<Value>> elements =
      Elements(ValueOf(*statement.value));
  if (!elements.ok()) {
    Fail(statement.position, elements.status().message());
    return {};
  }
  if (statement.condition == nullptr) {
    return *std::move(elements);
  }
  std::vector<Value> chosen;
  for (Value& element : *elements) {
    scopes_.emplace_back();
    Assign(statement, element);
    if (IsTrue(ValueOf(*statement.condition))) {
      chosen.push_back(std::move(element));
    }
    scopes_.pop_back();
  }
  return chosen;
}

Interpreter::Flow Interpreter::ExecuteFor(const Statement& statement) {
  const std::vector<Value> elements = LoopElements(statement);
  const size_t size = elements.size();
  for (size_t i = 0; i < size; ++i) {
    steps_ += kLoopSteps;
    if (steps_ > kMaxSteps) {
      Fail(statement.position, kEndless);
    }
    if (!status_.ok()) {
      break;
    }
    scopes_.emplace_back();
    Assign(statement, elements[i]);
    Value& loop = scopes_.back()["loop"];
    loop = {{"index", i + 1},       {"index0", i},
            {"first", i == 0},      {"last", i + 1 == size},
            {"revindex", size - i}, {"revindex0", size - i - 1},
            {"length", size}};
    if (i > 0) {
      loop["previtem"] = elements[i - 1];
    }
    if (i + 1 < size) {
      loop["nextitem"] = elements[i + 1];
    }
    const Flow flow = Execute(statement.body);
    scopes_.pop_back();
    if (flow == Flow::kBreak) {
      break;
    }
  }
  return size == 0 ? Execute(statement.otherwise) : Flow::kNext;
}

Value Interpreter::ValueOf(const Expr& expr) {
  Value scratch;
  const Value& value = Evaluate(expr, &scratch);
  return &value == &scratch ? std::move(scratch) : value;
}

const Value& Interpreter::Evaluate(const Expr& expr, Value* scratch) {
  *scratch = Undefined();
  if (++steps_ > kMaxSteps) {
    Fail(expr.position, kEndless);
  }
  if (!status_.ok()) {
    return *scratch;
  }
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.value;
    case ExprKind::kName:
      for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
        const auto it = scope->find(expr.name);
        if (it != scope->end()) {
          return it->second;
        }
      }
      if (const auto it = variables_.find(expr.name); it != variables_.end()) {
        return *it;
      }
      return *scratch;
    case ExprKind::kAttribute:
      return MemberOf(expr, scratch);
    case ExprKind::kConditional: {
      const bool chosen = IsTrue(ValueOf(*expr.args[0]));
      const Expr* branch = expr.args[chosen ? 1 : 2].get();
      return branch == nullptr ? *scratch : Evaluate(*branch, scratch);
    }
    case ExprKind::kList:
      *scratch = Value::array();
      for (const Expr::Ptr& item : expr.args) {
        scratch->push_back(ValueOf(*item));
      }
      break;
    case ExprKind::kDict:
      *scratch = DictOf(expr);
      break;
    case ExprKind::kIndex:
      *scratch = IndexInto(expr);
      break;
    case ExprKind::kSlice:
      *scratch = SliceOf(expr);
      break;
    case ExprKind::kCall:
      *scratch = Call(expr);
      break;
    case ExprKind::kFilter:
      *scratch = Take(
          expr.position,
          ApplyFilter(expr.name, ValueOf(*expr.args[0]), ArgumentsOf(expr)));
      break;
    case ExprKind::kTest: {
      const absl::StatusOr<bool> result =
          ApplyTest(expr.name, ValueOf(*expr.args[0]), ArgumentsOf(expr));
      *scratch = result.ok() ? Value(*result)
                             : Fail(expr.position, result.status().message());
      break;
    }
    case ExprKind::kUnary:
      *scratch = UnaryOf(expr);
      break;
    case ExprKind::kBinary:
      *scratch = BinaryOf(expr);
      break;
  }
  return *scratch;
}

const Value& Interpreter::MemberOf(const Expr& expr, Value* scratch) {
  Value own;
  const Value& subject = Evaluate(*expr.args[0], &own);
  if (IsUndefined(subject)) {
    Fail(expr.position,
         absl::StrCat("'", expr.name, "' of an undefined value"));
  }
  const auto it = subject.is_object() ? subject.find(expr.name) : subject.end();
  if (it == subject.end()) {
    return *scratch;
  }
  if (&subject != &own) {
    return *it;
  }
  *scratch = *it;
  return *scratch;
}

Value Interpreter::IndexInto(const Expr& expr) {
  Value own;
  const Value& subject = Evaluate(*expr.args[0], &own);
  const Value index = ValueOf(*expr.args[1]);
  if (IsUndefined(subject)) {
    return Fail(expr.position, "an index into an undefined value");
  }
  if (index.is_string()) {
    return Member(subject, index.get_ref<const std::string&>());
  }
  if (!index.is_number_integer()) {
    return Undefined();
  }
  auto at = index.get<int64_t>();
  if (subject.is_array()) {
    const auto size = static_cast<int64_t>(subject.size());
    at += at < 0 ? size : 0;
    return at >= 0 && at < size ? subject[at] : Undefined();
  }
  if (subject.is_string()) {
    const std::vector<std::string> characters =
        Characters(subject.get_ref<const std::string&>());
    const auto size = static_cast<int64_t>(characters.size());
    at += at < 0 ? size : 0;
    return at >= 0 && at < size ? Value(characters[at]) : Undefined();
  }
  return Undefined();
}

Value Interpreter::SliceOf(const Expr& expr) {
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    const Expr* part = expr.args[i + 1].get();
    const Value value = part == nullptr ? Value(nullptr) : ValueOf(*part);
    if (value.is_number_integer()) {
      bounds[i] = value.get<int64_t>();
    } else if (!value.is_null()) {
      return Fail(expr.position, "a slice's bound is not an integer");
    }
  }
  return Take(expr.position, Slice(ValueOf(*expr.args[0]), bounds[0], bounds[1],
                                   bounds[2].value_or(1)));
}

Arguments Interpreter::ArgumentsOf(const Expr& expr) {
  Arguments arguments;
  for (size_t i = 1; i < expr.args.size(); ++i) {
    arguments.positional.push_back(ValueOf(*expr.args[i]));
  }
  for (const auto& [name, value] : expr.named) {
    arguments.named.emplace_back(name, ValueOf(*value));
  }
  return arguments;
}

Value Interpreter::Call(const Expr& expr) {
  const Expr& callee = *expr.args[0];
  const Arguments arguments = ArgumentsOf(expr);
  if (!status_.ok()) {
    return Undefined();
  }
  if (callee.kind == ExprKind::kName) {
    return Take(expr.position, CallFunction(callee.name, arguments));
  }
  if (callee.kind == ExprKind::kAttribute) {
    Value own;
    return Take(expr.position, CallMethod(Evaluate(*callee.args[0], &own),
                                          callee.name, arguments));
  }
  return Fail(expr.position, "a call of what is no function");
}

Value Interpreter::DictOf(const Expr& expr) {
  Value dict = Value::object();
  for (size_t i = 0; i < expr.args.size(); i += 2) {
    const Value key = ValueOf(*expr.args[i]);
    if (!key.is_string()) {
      return Fail(expr.position, "a key that is not a string");
    }
    dict[key.get<std::string>()] = ValueOf(*expr.args[i + 1]);
  }
  return dict;
}

Value Interpreter::UnaryOf(const Expr& expr) {
  const Value value = ValueOf(*expr.args[0]);
  if (expr.name == "not") {
    return Value(!IsTrue(value));
  }
  return expr.name == "-"
             ? Take(expr.position, Arithmetic("-", Value(0), value))
             : value;
}

Value Interpreter::BinaryOf(const Expr& expr) {
  Value left_own;
  const Value& left = Evaluate(*expr.args[0], &left_own);
  if (expr.name == "and" || expr.name == "or") {
    return IsTrue(left) == (expr.name == "or") ? left : ValueOf(*expr.args[1]);
  }
  Value right_own;
  const Value& right = Evaluate(*expr.args[1], &right_own);
  if (!status_.ok()) {
    return Undefined();
  }
  return Take(expr.position, Arithmetic(expr.name, left, right));
}

}  // namespace lorica::jinja
