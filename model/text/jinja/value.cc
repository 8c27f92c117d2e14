#include "model/text/jinja/value.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/text/bpe/unicode.h"

namespace lorica::jinja {
namespace {

void AppendJson(const Value& value, int indent, int depth, std::string* out) {
  if (!value.is_structured() || value.empty()) {
    absl::StrAppend(
        out, value.dump(-1, ' ', false, Value::error_handler_t::replace));
    return;
  }
  const auto separate = [&](absl::string_view between, int level) {
    absl::StrAppend(out, between);
    if (indent >= 0) {
      out->push_back('\n');
      out->append(static_cast<size_t>(indent * level), ' ');
    }
  };
  out->push_back(value.is_array() ? '[' : '{');
  bool first = true;
  for (const auto& item : value.items()) {
    separate(first ? "" : indent >= 0 ? "," : ", ", depth + 1);
    first = false;
    if (value.is_object()) {
      AppendJson(Value(item.key()), indent, depth, out);
      absl::StrAppend(out, ": ");
    }
    AppendJson(item.value(), indent, depth + 1, out);
  }
  separate("", depth);
  out->push_back(value.is_array() ? ']' : '}');
}

}  // namespace

Value AsNumber(const Value& value) {
  return value.is_boolean() ? Value(value.get<bool>() ? 1 : 0) : value;
}

bool IsTrue(const Value& value) {
  if (IsUndefined(value) || value.is_null()) {
    return false;
  }
  if (value.is_boolean()) {
    return value.get<bool>();
  }
  if (value.is_number()) {
    return value != Value(0);
  }
  return value.is_string() ? !value.get_ref<const std::string&>().empty()
                           : !value.empty();
}

bool IsEqual(const Value& a, const Value& b) {
  if (IsUndefined(a) || IsUndefined(b)) {
    return IsUndefined(a) && IsUndefined(b);
  }
  if (!a.is_structured() || a.type() != b.type()) {
    return AsNumber(a) == AsNumber(b);
  }
  if (a.size() != b.size()) {
    return false;
  }
  if (a.is_array()) {
    return std::equal(a.begin(), a.end(), b.begin(), IsEqual);
  }
  return std::all_of(a.items().begin(), a.items().end(), [&](const auto& item) {
    const auto other = b.find(item.key());
    return other != b.end() && IsEqual(item.value(), *other);
  });
}

std::optional<int> Compare(const Value& a, const Value& b) {
  const Value x = AsNumber(a);
  const Value y = AsNumber(b);
  if (!(x.is_number() && y.is_number()) && !(x.is_string() && y.is_string())) {
    return std::nullopt;
  }
  return x < y ? -1 : x == y ? 0 : 1;
}

std::optional<std::string> ToText(const Value& value) {
  if (IsUndefined(value)) {
    return "";
  }
  if (value.is_structured()) {
    return std::nullopt;
  }
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_null()) {
    return "None";
  }
  if (value.is_boolean()) {
    return value.get<bool>() ? "True" : "False";
  }
  return value.dump();
}

std::string ToJson(const Value& value, int indent) {
  std::string out;
  AppendJson(value, indent, 0, &out);
  return out;
}

std::vector<std::string> Characters(absl::string_view text) {
  std::vector<std::string> characters;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    NextCodePoint(text, &at);
    characters.emplace_back(text.substr(begin, at - begin));
  }
  return characters;
}

std::string Strip(absl::string_view text, absl::string_view characters,
                  Sides sides) {
  const std::vector<std::string> parts = Characters(text);
  const std::vector<std::string> set = Characters(characters);
  const auto strips = [&](const std::string& character) {
    if (!set.empty()) {
      return std::find(set.begin(), set.end(), character) != set.end();
    }
    size_t at = 0;
    const char32_t c = NextCodePoint(character, &at);
    return IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F);  // As Python has it.
  };
  size_t begin = 0;
  size_t end = parts.size();
  while (sides != Sides::kRight && begin < end && strips(parts[begin])) {
    ++begin;
  }
  while (sides != Sides::kLeft && begin < end && strips(parts[end - 1])) {
    --end;
  }
  std::string out;
  for (size_t i = begin; i < end; ++i) {
    out += parts[i];
  }
  return out;
}

}  // namespace lorica::jinja
