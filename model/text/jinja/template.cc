#include "model/text/jinja/template.h"

#include <utility>

#include "absl/strings/str_replace.h"
#include "model/text/bpe/unicode.h"
#include "model/text/jinja/interpreter.h"
#include "runtime/status_macros.h"

namespace lorica::jinja {

absl::StatusOr<Template> Template::Create(absl::string_view source) {
  LORICA_RETURN_IF_ERROR(CheckUtf8(source));
  Template result;
  result.source_ = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  LORICA_ASSIGN_OR_RETURN(result.statements_, Parse(result.source_));
  return result;
}

absl::StatusOr<std::string> Template::Render(const Value& variables) const {
  return Interpreter(source_, variables).Run(statements_);
}

}  // namespace lorica::jinja
