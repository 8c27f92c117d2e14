// The binary operators of templates, but `and` and `or`.
#ifndef LORICA_MODEL_TEXT_JINJA_ARITHMETIC_H_
#define LORICA_MODEL_TEXT_JINJA_ARITHMETIC_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/jinja/value.h"

namespace lorica::jinja {

// Fails where Python would, and where an integer leaves 64 bits or a text
// becomes enormous.
absl::StatusOr<Value> Arithmetic(absl::string_view op, const Value& left,
                                 const Value& right);

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_ARITHMETIC_H_
