#include "model/text/jinja/functions.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "model/text/bpe/unicode.h"
#include "runtime/status_macros.h"

namespace lorica::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;

absl::Status NotFor(absl::string_view what, const Value& subject) {
  return absl::InvalidArgumentError(absl::StrCat(
      what, " of ",
      IsUndefined(subject) ? "an undefined value" : subject.type_name(),
      " is not supported"));
}

absl::StatusOr<std::string> TextOf(const Value& value) {
  std::optional<std::string> text = ToText(value);
  if (!text.has_value()) {
    return NotFor("the text", value);
  }
  return *std::move(text);
}

std::string StringOr(const Value& value, absl::string_view otherwise) {
  return value.is_string() ? value.get<std::string>() : std::string(otherwise);
}

int64_t IntegerOr(const Value& value, int64_t otherwise) {
  return value.is_number_integer() ? value.get<int64_t>() : otherwise;
}

std::string Capitalized(absl::string_view text) {
  std::vector<std::string> characters = Characters(ToLower(text));
  if (!characters.empty()) {
    characters[0] = ToUpper(characters[0]);
  }
  return absl::StrJoin(characters, "");
}

// As str.split.
Value SplitText(const std::string& text, const Arguments& arguments) {
  const Value separator = arguments.Get(0, "sep");
  const int64_t limit = IntegerOr(arguments.Get(1, "maxsplit"), -1);
  Value parts = Value::array();
  const std::string by = StringOr(separator, "");
  size_t begin = 0;
  while (begin <= text.size()) {
    const bool last = limit >= 0 && static_cast<int64_t>(parts.size()) == limit;
    if (by.empty()) {
      const std::string rest =
          Strip(absl::string_view(text).substr(begin), "", Sides::kLeft);
      if (rest.empty()) {
        break;
      }
      begin = text.size() - rest.size();
    }
    const size_t end = last         ? std::string::npos
                       : by.empty() ? text.find_first_of(" \t\n\r\f\v", begin)
                                    : text.find(by, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) {
      break;
    }
    begin = end + std::max<size_t>(by.size(), 1);
  }
  return parts;
}

// As the filter of that name: lines but the first, unless blank, moved right.
std::string Indented(const std::string& text, const Arguments& arguments) {
  const Value width = arguments.Get(0, "width");
  const std::string space =
      width.is_string()
          ? width.get<std::string>()
          : std::string(std::clamp<int64_t>(IntegerOr(width, 4), 0, 1000), ' ');
  const bool first = IsTrue(arguments.Get(1, "first"));
  const bool blank = IsTrue(arguments.Get(2, "blank"));
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i == 0 ? first : (blank || !lines[i].empty())) {
      lines[i] = space + lines[i];
    }
  }
  return absl::StrJoin(lines, "\n");
}

absl::StatusOr<Value> JoinFilter(const Value& subject,
                                 const Arguments& arguments) {
  LORICA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(subject));
  const std::string between = StringOr(arguments.Get(0, "d"), "");
  const std::string attribute = StringOr(arguments.Get(1, "attribute"), "");
  std::vector<std::string> texts;
  for (const Value& element : elements) {
    LORICA_ASSIGN_OR_RETURN(
        std::string text,
        TextOf(attribute.empty() ? element : Member(element, attribute)));
    texts.push_back(std::move(text));
  }
  return Value(absl::StrJoin(texts, between));
}

// map: each element's attribute, or what a filter makes of it.
absl::StatusOr<Value> MapFilter(const Value& subject,
                                const Arguments& arguments) {
  LORICA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(subject));
  const Value attribute = arguments.Get(1000, "attribute");
  Value out = Value::array();
  for (const Value& element : elements) {
    if (attribute.is_string()) {
      out.push_back(Member(element, attribute.get<std::string>()));
      continue;
    }
    Arguments rest = arguments;
    const std::string filter = StringOr(arguments.Get(0, ""), "");
    if (!rest.positional.empty()) {
      rest.positional.erase(rest.positional.begin());
    }
    LORICA_ASSIGN_OR_RETURN(Value mapped, ApplyFilter(filter, element, rest));
    out.push_back(std::move(mapped));
  }
  return out;
}

// selectattr and rejectattr: the elements whose attribute passes a test.
absl::StatusOr<Value> SelectFilter(const Value& subject,
                                   const Arguments& arguments, bool wanted) {
  LORICA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(subject));
  const std::string attribute = StringOr(arguments.Get(0, ""), "");
  const std::string test = StringOr(arguments.Get(1, ""), "");
  const Arguments rest{.positional = {arguments.Get(2, "")}};
  Value out = Value::array();
  for (const Value& element : elements) {
    const Value member = Member(element, attribute);
    absl::StatusOr<bool> passes =
        test.empty() ? IsTrue(member) : ApplyTest(test, member, rest);
    LORICA_RETURN_IF_ERROR(passes.status());
    if (*passes == wanted) {
      out.push_back(element);
    }
  }
  return out;
}

Value ItemsOf(const Value& object) {
  Value items = Value::array();
  for (const auto& item : object.items()) {
    items.push_back(Value::array({item.key(), item.value()}));
  }
  return items;
}

absl::StatusOr<Value> TextFilter(absl::string_view name, const Value& subject,
                                 const Arguments& arguments) {
  LORICA_ASSIGN_OR_RETURN(const std::string text, TextOf(subject));
  if (name == "trim") {
    return Value(
        Strip(text, StringOr(arguments.Get(0, "chars"), ""), Sides::kBoth));
  }
  if (name == "upper") {
    return Value(ToUpper(text));
  }
  if (name == "lower") {
    return Value(ToLower(text));
  }
  if (name == "capitalize") {
    return Value(Capitalized(text));
  }
  if (name == "indent") {
    return Value(Indented(text, arguments));
  }
  if (name == "replace") {
    return CallMethod(Value(text), "replace", arguments);
  }
  if (name == "string" || name == "safe") {
    return Value(text);
  }
  return absl::UnimplementedError(
      absl::StrCat("the filter '", name, "' is not supported"));
}

absl::StatusOr<Value> Length(const Value& subject) {
  if (subject.is_string()) {
    return Value(NumCodePoints(subject.get_ref<const std::string&>()));
  }
  if (subject.is_structured()) {
    return Value(static_cast<int64_t>(subject.size()));
  }
  return IsUndefined(subject) ? absl::StatusOr<Value>(Value(0))
                              : NotFor("the length", subject);
}

absl::StatusOr<Value> ToInteger(const Value& subject,
                                const Arguments& arguments) {
  int64_t number = IntegerOr(arguments.Get(0, "default"), 0);
  if (subject.is_number_integer() || subject.is_boolean()) {
    return Value(AsNumber(subject).get<int64_t>());
  }
  if (subject.is_number_float() && std::abs(subject.get<double>()) < 0x1p62) {
    return Value(static_cast<int64_t>(subject.get<double>()));
  }
  int64_t parsed = 0;
  if (subject.is_string() &&
      absl::SimpleAtoi(subject.get_ref<const std::string&>(), &parsed)) {
    number = parsed;
  }
  return Value(number);
}

}  // namespace

Value Arguments::Get(size_t index, absl::string_view name) const {
  if (index < positional.size()) {
    return positional[index];
  }
  for (const auto& [key, value] : named) {
    if (key == name) {
      return value;
    }
  }
  return Undefined();
}

absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& subject,
                                  const Arguments& arguments) {
  if (name == "default" || name == "d") {
    const bool replaced =
        IsUndefined(subject) ||
        (IsTrue(arguments.Get(1, "boolean")) && !IsTrue(subject));
    const Value other = arguments.Get(0, "default_value");
    return !replaced ? subject : IsUndefined(other) ? Value("") : other;
  }
  if (name == "length" || name == "count") {
    return Length(subject);
  }
  if (name == "tojson") {
    return IsUndefined(subject)
               ? absl::StatusOr<Value>(NotFor("the JSON", subject))
               : Value(ToJson(subject,
                              static_cast<int>(std::clamp<int64_t>(
                                  IntegerOr(arguments.Get(1000, "indent"), -1),
                                  -1, 100))));
  }
  if (name == "int") {
    return ToInteger(subject, arguments);
  }
  if (name == "join") {
    return JoinFilter(subject, arguments);
  }
  if (name == "map") {
    return MapFilter(subject, arguments);
  }
  if (name == "selectattr" || name == "rejectattr") {
    return SelectFilter(subject, arguments, name == "selectattr");
  }
  if (name == "items" && subject.is_object()) {
    return ItemsOf(subject);
  }
  if (name == "first" || name == "last" || name == "list" ||
      name == "reverse") {
    LORICA_ASSIGN_OR_RETURN(std::vector<Value> elements, Elements(subject));
    if (name == "reverse") {
      std::reverse(elements.begin(), elements.end());
    }
    if (name == "list" || name == "reverse") {
      return Value(elements);
    }
    return elements.empty()  ? Undefined()
           : name == "first" ? elements.front()
                             : elements.back();
  }
  return TextFilter(name, subject, arguments);
}

absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& subject,
                               const Arguments& arguments) {
  const Value argument = arguments.Get(0, "other");
  const bool defined = !IsUndefined(subject);
  if (name == "defined") return defined;
  if (name == "undefined") return !defined;
  if (name == "none") return subject.is_null();
  if (name == "string") return subject.is_string();
  if (name == "number") return subject.is_number() || subject.is_boolean();
  if (name == "integer") return subject.is_number_integer();
  if (name == "float") return subject.is_number_float();
  if (name == "boolean") return subject.is_boolean();
  if (name == "true") return subject.is_boolean() && subject.get<bool>();
  if (name == "false") return subject.is_boolean() && !subject.get<bool>();
  if (name == "mapping") return subject.is_object();
  if (name == "iterable" || name == "sequence") {
    return subject.is_structured() || subject.is_string() || !defined;
  }
  if (name == "equalto" || name == "eq") return IsEqual(subject, argument);
  if (name == "ne") return !IsEqual(subject, argument);
  if (name == "in") {
    LORICA_ASSIGN_OR_RETURN(const std::vector<Value> elements,
                            Elements(argument));
    return std::any_of(
        elements.begin(), elements.end(),
        [&](const Value& element) { return IsEqual(element, subject); });
  }
  const int64_t divisor = name == "divisibleby" ? IntegerOr(argument, 0)
                          : name == "even" || name == "odd" ? 2
                                                            : 0;
  if (divisor != 0 && subject.is_number_integer()) {
    const bool divides = divisor == -1 || subject.get<int64_t>() % divisor == 0;
    return divides != (name == "odd");
  }
  return absl::UnimplementedError(
      absl::StrCat("the test '", name, "' is not supported here"));
}

absl::StatusOr<Value> CallMethod(const Value& subject, absl::string_view name,
                                 const Arguments& arguments) {
  const Value first = arguments.Get(0, "");
  if (subject.is_object()) {
    if (name == "get") {
      const Value found = Member(subject, StringOr(first, ""));
      const Value other = arguments.Get(1, "default");
      return !IsUndefined(found)  ? found
             : IsUndefined(other) ? Value(nullptr)
                                  : other;
    }
    Value out = Value::array();
    for (const auto& item : ItemsOf(subject)) {
      out.push_back(name == "items" ? item : item[name == "keys" ? 0 : 1]);
    }
    if (name == "items" || name == "keys" || name == "values") {
      return out;
    }
  }
  if (!subject.is_string()) {
    return NotFor(absl::StrCat("the method '", name, "'"), subject);
  }
  const auto& text = subject.get_ref<const std::string&>();
  const std::string argument = StringOr(first, "");
  if (name == "strip") return Value(Strip(text, argument, Sides::kBoth));
  if (name == "lstrip") return Value(Strip(text, argument, Sides::kLeft));
  if (name == "rstrip") return Value(Strip(text, argument, Sides::kRight));
  if (name == "upper") return Value(ToUpper(text));
  if (name == "lower") return Value(ToLower(text));
  if (name == "capitalize") return Value(Capitalized(text));
  if (name == "split") return SplitText(text, arguments);
  if (name == "startswith" && first.is_string()) {
    return Value(absl::StartsWith(text, argument));
  }
  if (name == "endswith" && first.is_string()) {
    return Value(absl::EndsWith(text, argument));
  }
  if (name == "replace" && arguments.positional.size() == 2 &&
      !argument.empty()) {
    const std::string other = StringOr(arguments.positional[1], "");
    return Value(absl::StrReplaceAll(text, {{argument, other}}));
  }
  return absl::UnimplementedError(absl::StrCat(
      "the method '", name, "' with these arguments is not supported"));
}

absl::StatusOr<Value> CallFunction(absl::string_view name,
                                   const Arguments& arguments) {
  if (name == "raise_exception") {
    return absl::InvalidArgumentError(
        absl::StrCat("the template refuses the conversation: ",
                     StringOr(arguments.Get(0, "message"), "")));
  }
  if (name == "namespace" || name == "dict") {
    Value object = Value::object();
    if (!arguments.positional.empty()) {
      object = arguments.positional[0];
    }
    for (const auto& [key, value] : arguments.named) {
      object[key] = value;
    }
    return object;
  }
  if (name == "range" && !arguments.positional.empty()) {
    const bool one = arguments.positional.size() == 1;
    const int64_t begin = one ? 0 : IntegerOr(arguments.positional[0], 0);
    const int64_t end = IntegerOr(arguments.positional[one ? 0 : 1], 0);
    const int64_t step = IntegerOr(arguments.Get(2, "step"), 1);
    Value numbers = Value::array();
    if (step == 0 || std::max(std::abs(begin), std::abs(end)) > kMaxRange) {
      return absl::InvalidArgumentError("a range out of bounds");
    }
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
      numbers.push_back(i);
    }
    return numbers;
  }
  return absl::UnimplementedError(
      absl::StrCat("the function '", name, "' is not supported"));
}

absl::StatusOr<std::vector<Value>> Elements(const Value& value) {
  std::vector<Value> elements;
  if (value.is_array()) {
    elements.assign(value.begin(), value.end());
  } else if (value.is_object()) {
    for (const auto& item : value.items()) {
      elements.emplace_back(item.key());
    }
  } else if (value.is_string()) {
    for (std::string& character :
         Characters(value.get_ref<const std::string&>())) {
      elements.emplace_back(std::move(character));
    }
  } else if (!IsUndefined(value)) {
    return NotFor("a loop or list", value);
  }
  return elements;
}

Value Member(const Value& subject, absl::string_view name) {
  if (!subject.is_object()) {
    return Undefined();
  }
  const auto it = subject.find(std::string(name));
  return it == subject.end() ? Undefined() : *it;
}

absl::StatusOr<Value> Slice(const Value& subject, std::optional<int64_t> begin,
                            std::optional<int64_t> end, int64_t step) {
  if (!subject.is_array() && !subject.is_string()) {
    return NotFor("a slice", subject);
  }
  if (step == 0) {
    return absl::InvalidArgumentError("a slice with step 0");
  }
  LORICA_ASSIGN_OR_RETURN(const std::vector<Value> elements, Elements(subject));
  const auto size = static_cast<int64_t>(elements.size());
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? size : size - 1;
  const auto place = [&](std::optional<int64_t> at, int64_t otherwise) {
    return !at.has_value()
               ? otherwise
               : std::clamp(*at < 0 ? *at + size : *at, lowest, highest);
  };
  const int64_t from = place(begin, step > 0 ? lowest : highest);
  const int64_t to = place(end, step > 0 ? highest : lowest);
  step = std::clamp<int64_t>(step, -size - 1, size + 1);
  Value list = Value::array();
  std::string text;
  for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
    if (subject.is_string()) {
      text += elements[i].get_ref<const std::string&>();
    } else {
      list.push_back(elements[i]);
    }
  }
  return subject.is_string() ? Value(text) : list;
}

}  // namespace lorica::jinja
