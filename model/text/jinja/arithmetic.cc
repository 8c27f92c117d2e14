#include "model/text/jinja/arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/text/jinja/functions.h"
#include "runtime/status_macros.h"

namespace lorica::jinja {
namespace {

constexpr size_t kMaxText = 64 << 20;
constexpr size_t kMaxElements = 1 << 20;

std::string NameOf(const Value& value) {
  return IsUndefined(value) ? "an undefined value" : value.type_name();
}

absl::Status NoValue(absl::string_view op, const Value& left,
                     const Value& right) {
  return absl::InvalidArgumentError(absl::StrCat(
      "'", op, "' of ", NameOf(left), " and ", NameOf(right), " has no value"));
}

absl::StatusOr<Value> OfIntegers(absl::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (b == 0) {
    return absl::InvalidArgumentError("a division by zero");
  } else if (b == -1) {
    overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
    result = op == "%" ? 0 : result;
  } else {
    // Python rounds towards minus infinity.
    const int64_t remainder = a % b;
    const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
    result = op == "%" ? remainder + (adjust ? b : 0) : a / b - adjust;
  }
  if (overflow) {
    return absl::InvalidArgumentError("an integer beyond 64 bits");
  }
  return Value(result);
}

absl::StatusOr<Value> OfNumbers(absl::string_view op, const Value& left,
                                const Value& right) {
  const bool integers = !left.is_number_float() && !right.is_number_float();
  if (integers && op != "/") {
    return OfIntegers(op, left.get<int64_t>(), right.get<int64_t>());
  }
  const auto a = left.get<double>();
  const auto b = right.get<double>();
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (b == 0) {
    return absl::InvalidArgumentError("a division by zero");
  }
  if (op == "/") return Value(a / b);
  const double floor = std::floor(a / b);
  return Value(op == "%" ? a - floor * b : floor);
}

absl::StatusOr<bool> Contains(const Value& container, const Value& value) {
  if (container.is_string() && value.is_string()) {
    return absl::StrContains(container.get_ref<const std::string&>(),
                             value.get_ref<const std::string&>());
  }
  if (container.is_string()) {
    return NoValue("in", value, container);
  }
  LORICA_ASSIGN_OR_RETURN(const std::vector<Value> elements,
                          Elements(container));
  return std::any_of(
      elements.begin(), elements.end(),
      [&](const Value& element) { return IsEqual(element, value); });
}

absl::StatusOr<Value> Repeat(const std::string& text, int64_t count) {
  const auto times = static_cast<size_t>(std::max<int64_t>(count, 0));
  if (!text.empty() && times > kMaxText / text.size()) {
    return absl::InvalidArgumentError("a text without measure");
  }
  std::string out;
  for (size_t i = 0; i < times && !text.empty(); ++i) {
    out += text;
  }
  return Value(out);
}

absl::StatusOr<Value> Concatenate(const Value& left, const Value& right) {
  const std::optional<std::string> a = ToText(left);
  const std::optional<std::string> b = ToText(right);
  if (!a.has_value() || !b.has_value()) {
    return NoValue("~", left, right);
  }
  if (a->size() + b->size() > kMaxText) {
    return absl::InvalidArgumentError("a text without measure");
  }
  return Value(*a + *b);
}

}  // namespace

absl::StatusOr<Value> Arithmetic(absl::string_view op, const Value& left,
                                 const Value& right) {
  if (op == "==") return Value(IsEqual(left, right));
  if (op == "!=") return Value(!IsEqual(left, right));
  if (op == "~") return Concatenate(left, right);
  if (op == "in" || op == "not in") {
    LORICA_ASSIGN_OR_RETURN(const bool contains, Contains(right, left));
    return Value(contains == (op == "in"));
  }
  if (op[0] == '<' || op[0] == '>') {
    const std::optional<int> order = Compare(left, right);
    if (!order.has_value()) {
      return NoValue(op, left, right);
    }
    const bool strict = op[0] == '<' ? *order < 0 : *order > 0;
    return Value(strict || (op.size() == 2 && *order == 0));
  }
  const auto is_number = [](const Value& value) {
    return value.is_number() || value.is_boolean();
  };
  if (is_number(left) && is_number(right)) {
    return OfNumbers(op, AsNumber(left), AsNumber(right));
  }
  if (op == "+" && left.is_string() && right.is_string()) {
    return Concatenate(left, right);
  }
  if (op == "+" && left.is_array() && right.is_array()) {
    if (left.size() + right.size() > kMaxElements) {
      return absl::InvalidArgumentError("a list without measure");
    }
    Value both = left;
    both.insert(both.end(), right.begin(), right.end());
    return both;
  }
  if (op == "*" && left.is_string() && right.is_number_integer()) {
    return Repeat(left.get<std::string>(), right.get<int64_t>());
  }
  return NoValue(op, left, right);
}

}  // namespace lorica::jinja
