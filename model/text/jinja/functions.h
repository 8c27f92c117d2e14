// What templates can call: filters, tests, methods and global functions, with
// the results they have in Jinja under Python.
#ifndef LORICA_MODEL_TEXT_JINJA_FUNCTIONS_H_
#define LORICA_MODEL_TEXT_JINJA_FUNCTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/jinja/value.h"

namespace lorica::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or of `name`, or undefined.
  Value Get(size_t index, absl::string_view name) const;
};

// subject | name(arguments)
absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& subject,
                                  const Arguments& arguments);

// subject is name(arguments)
absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& subject,
                               const Arguments& arguments);

// subject.name(arguments)
absl::StatusOr<Value> CallMethod(const Value& subject, absl::string_view name,
                                 const Arguments& arguments);

// name(arguments). raise_exception fails with its message.
absl::StatusOr<Value> CallFunction(absl::string_view name,
                                   const Arguments& arguments);

// What a loop over the value visits: elements, characters or keys.
absl::StatusOr<std::vector<Value>> Elements(const Value& value);

// subject.name or subject[name]: undefined where it is not.
Value Member(const Value& subject, absl::string_view name);

// subject[begin:end:step] of a list or a string.
absl::StatusOr<Value> Slice(const Value& subject, std::optional<int64_t> begin,
                            std::optional<int64_t> end, int64_t step);

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_FUNCTIONS_H_
