#include "launch/commands/command_line.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "runtime/check.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

std::string Signature(const Flag& flag) {
  return flag.kind == FlagKind::kSwitch
             ? absl::StrCat("--", flag.name)
             : absl::StrCat("--", flag.name, " ", flag.value_name);
}

bool HasValueOf(FlagKind kind, const Flag& flag, const std::string& value) {
  int64_t whole;
  double number;
  switch (kind) {
    case FlagKind::kWhole:
      return absl::SimpleAtoi(value, &whole);
    case FlagKind::kNumber:
      return absl::SimpleAtod(value, &number) && std::isfinite(number);
    case FlagKind::kChoice: {
      const std::vector<std::string> choices =
          absl::StrSplit(flag.value_name, '|');
      return std::find(choices.begin(), choices.end(), value) != choices.end();
    }
    case FlagKind::kText:
    case FlagKind::kSwitch:
      return true;
  }
  return false;
}

std::string Description(const Flag& flag) {
  switch (flag.kind) {
    case FlagKind::kWhole:
      return "a whole number";
    case FlagKind::kNumber:
      return "a number";
    case FlagKind::kChoice:
      return absl::StrCat("one of ", flag.value_name);
    default:
      return "a value";
  }
}

}  // namespace

const Arguments::Values& Arguments::Find(absl::string_view name) const {
  const auto found = values_.find(name);
  CHECK(found != values_.end()) << "the command has no flag " << name;
  return found->second;
}

bool Arguments::Has(absl::string_view name) const {
  return !Find(name).given.empty();
}

const std::string& Arguments::Text(absl::string_view name) const {
  const Values& values = Find(name);
  return values.given.empty() ? values.default_value : values.given.back();
}

int64_t Arguments::Whole(absl::string_view name) const {
  int64_t whole = 0;
  CHECK(absl::SimpleAtoi(Text(name), &whole)) << name << " is no whole number";
  return whole;
}

double Arguments::Number(absl::string_view name) const {
  double number = 0;
  CHECK(absl::SimpleAtod(Text(name), &number)) << name << " is no number";
  return number;
}

bool Arguments::Switch(absl::string_view name) const { return Has(name); }

const std::vector<std::string>& Arguments::Texts(absl::string_view name) const {
  return Find(name).given;
}

// Walks the words once.
class Parser {
 public:
  Parser(const Command& command, absl::Span<const char* const> words)
      : command_(command), words_(words) {
    for (const Flag& flag : command.flags) {
      arguments_.values_[flag.name] = {flag, {}, flag.default_value};
    }
  }

  absl::StatusOr<Arguments> Parse() {
    while (next_ < words_.size()) {
      const absl::string_view word = words_[next_++];
      LORICA_RETURN_IF_ERROR(word.size() > 2 && word.substr(0, 2) == "--"
                                 ? TakeFlag(word.substr(2))
                                 : TakeOperand(word));
    }
    for (const Flag& flag : command_.flags) {
      if (flag.presence == Presence::kRequired && !arguments_.Has(flag.name)) {
        return Error(absl::StrCat(Signature(flag), " is missing"));
      }
    }
    const Operand& operand = command_.operand;
    if (*operand.name != '\0' && operand.presence == Presence::kRequired &&
        arguments_.operands_.empty()) {
      return Error(absl::StrCat(operand.name, " is missing"));
    }
    return std::move(arguments_);
  }

 private:
  absl::Status TakeFlag(absl::string_view word) {
    const size_t equals = word.find('=');
    const absl::string_view name = word.substr(0, equals);
    const auto found = arguments_.values_.find(name);
    if (found == arguments_.values_.end()) {
      return Error(absl::StrCat("there is no flag --", name));
    }
    Arguments::Values& values = found->second;
    const Flag& flag = values.flag;
    std::string value;
    if (flag.kind == FlagKind::kSwitch) {
      if (equals != absl::string_view::npos) {
        return Error(absl::StrCat("--", name, " takes no value"));
      }
    } else if (equals != absl::string_view::npos) {
      value = std::string(word.substr(equals + 1));
    } else if (next_ < words_.size()) {
      value = words_[next_++];
    } else {
      return Error(absl::StrCat("--", name, " needs ", Description(flag)));
    }
    if (!HasValueOf(flag.kind, flag, value)) {
      return Error(absl::StrCat("--", name, " is \"", value, "\"; it must be ",
                                Description(flag)));
    }
    if (!values.given.empty() && flag.presence != Presence::kRepeated) {
      return Error(absl::StrCat("--", name, " is given twice"));
    }
    values.given.push_back(value);
    return absl::OkStatus();
  }

  absl::Status TakeOperand(absl::string_view word) {
    if (*command_.operand.name == '\0' ||
        std::ssize(arguments_.operands_) >= command_.operand.most) {
      return Error(absl::StrCat("\"", word, "\" is one argument too many"));
    }
    arguments_.operands_.emplace_back(word);
    return absl::OkStatus();
  }

  absl::Status Error(const std::string& message) const {
    return absl::InvalidArgumentError(
        absl::StrCat(message, "\n", UsageOf(command_)));
  }

  const Command& command_;
  const absl::Span<const char* const> words_;
  size_t next_ = 0;
  Arguments arguments_;
};

absl::StatusOr<Arguments> ParseArguments(const Command& command,
                                         absl::Span<const char* const> words) {
  return Parser(command, words).Parse();
}

std::string UsageOf(const Command& command) {
  std::string usage = absl::StrCat("usage: lorica ", command.name);
  for (const Flag& flag : command.flags) {
    const std::string signature = Signature(flag);
    switch (flag.presence) {
      case Presence::kRequired:
        absl::StrAppend(&usage, " ", signature);
        break;
      case Presence::kOptional:
        absl::StrAppend(&usage, " [", signature, "]");
        break;
      case Presence::kRepeated:
        absl::StrAppend(&usage, " [", signature, " ...]");
        break;
    }
  }
  if (*command.operand.name != '\0') {
    absl::StrAppend(&usage,
                    command.operand.presence == Presence::kRequired
                        ? absl::StrCat(" ", command.operand.name)
                        : absl::StrCat(" [", command.operand.name, "]"));
    for (int i = 1; i < command.operand.most; ++i) {
      absl::StrAppend(&usage, " [", command.operand.name, "]");
    }
  }
  return usage;
}

std::string HelpOf(const Command& command) {
  std::string help = absl::StrCat(UsageOf(command), "\n\n", command.details);
  if (!command.flags.empty()) absl::StrAppend(&help, "\n");
  for (const Flag& flag : command.flags) {
    const std::string default_value =
        *flag.default_value == '\0'
            ? ""
            : absl::StrCat(" (default ", flag.default_value, ")");
    absl::StrAppendFormat(&help, "  %-22s %s%s\n", Signature(flag), flag.help,
                          default_value);
  }
  return help;
}

}  // namespace lorica
