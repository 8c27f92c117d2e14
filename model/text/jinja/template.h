// The part of Jinja that chat templates use. What is not here is refused with
// its place when a template is parsed, or when it is reached: macros, imports,
// inheritance, calls of what is not named in functions.cc, the text of lists
// and dicts, and strftime_now, since data must not depend on the day.
#ifndef LORICA_MODEL_TEXT_JINJA_TEMPLATE_H_
#define LORICA_MODEL_TEXT_JINJA_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/jinja/syntax.h"
#include "model/text/jinja/value.h"

namespace lorica::jinja {

class Template {
 public:
  static absl::StatusOr<Template> Create(absl::string_view source);

  // `variables` is an object. Fails with a place where the template does, and
  // where it works or writes without measure.
  absl::StatusOr<std::string> Render(const Value& variables) const;

 private:
  Template() = default;

  std::string source_;
  std::vector<Statement> statements_;
};

}  // namespace lorica::jinja

#endif  // LORICA_MODEL_TEXT_JINJA_TEMPLATE_H_
