// Values of templates, with Python's rules.
#ifndef LORICA_MODEL_TEXT_JINJA_VALUE_H_
#define LORICA_MODEL_TEXT_JINJA_VALUE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lorica::jinja {

// JSON, objects in the order of their keys' insertion, and an undefined value.
using Value = nlohmann::ordered_json;

inline Value Undefined() { return Value(Value::value_t::discarded); }
inline bool IsUndefined(const Value& value) { return value.is_discarded(); }

// The value, but 1 for true and 0 for false, which Python counts as numbers.
Value AsNumber(const Value& value);

bool IsTrue(const Value& value);

// As Python's ==: numbers by value, and true is 1.
bool IsEqual(const Value& a, const Value& b);

// Less than zero, zero or more; nothing where the two have no order.
std::optional<int> Compare(const Value& a, const Value& b);

// As Python's str(); nothing for lists and objects, whose form as text belongs
// to Python.
std::optional<std::string> ToText(const Value& value);

// As json.dumps(value, ensure_ascii=False, indent=indent); a negative indent
// stands for none.
std::string ToJson(const Value& value, int indent);

// The characters of a string.
std::vector<std::string> Characters(absl::string_view text);

// As str.strip, lstrip and rstrip: of `characters`, or white space if empty.
enum class Sides : uint8_t { kBoth, kLeft, kRight };
std::string Strip(absl::string_view text, absl::string_view characters,
                  Sides sides);

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_VALUE_H_
