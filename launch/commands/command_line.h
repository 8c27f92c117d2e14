// The commands of the program: what each takes and how that is read.
#ifndef LORICA_LAUNCH_COMMANDS_COMMAND_LINE_H_
#define LORICA_LAUNCH_COMMANDS_COMMAND_LINE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lorica {

class MpiEnvironment;

// kChoice is one of the words in value_name, "f32|bf16". kSwitch takes no
// value.
enum class FlagKind : uint8_t { kText, kWhole, kNumber, kChoice, kSwitch };
enum class Presence : uint8_t { kRequired, kOptional, kRepeated };

// Written "--name value" or "--name=value".
struct Flag {
  const char* name = "";
  const char* value_name = "";
  FlagKind kind = FlagKind::kText;
  Presence presence = Presence::kOptional;
  const char* default_value = "";
  const char* help = "";
};

// The values of a command line, checked against the command's flags; asking for
// a flag the command does not have is a programming error.
class Arguments {
 public:
  // Whether the user gave it.
  bool Has(absl::string_view name) const;
  // The given value or the default.
  const std::string& Text(absl::string_view name) const;
  int64_t Whole(absl::string_view name) const;
  double Number(absl::string_view name) const;
  bool Switch(absl::string_view name) const;
  const std::vector<std::string>& Texts(absl::string_view name) const;
  // The arguments without a flag, at most as many as the command takes.
  const std::vector<std::string>& operands() const { return operands_; }
  // The first of them; empty where it may be and is left out.
  std::string operand() const {
    return operands_.empty() ? std::string() : operands_.front();
  }

 private:
  friend class Parser;

  struct Values {
    Flag flag;
    std::vector<std::string> given;
    std::string default_value;
  };
  const Values& Find(absl::string_view name) const;

  std::map<std::string, Values, std::less<>> values_;
  std::vector<std::string> operands_;
};

struct Operand {
  const char* name = "";  // Empty: the command takes none.
  Presence presence = Presence::kRequired;
  int most = 1;  // How many may be given.
};

struct Command {
  const char* name;
  const char* summary;  // One line, lower case, without a full stop.
  const char* details;  // Paragraphs, wrapped at 78 columns.
  Operand operand;
  std::vector<Flag> flags;
  // Runs on every rank; returns the same verdict on all of them.
  absl::Status (*run)(const Arguments& arguments, const MpiEnvironment& mpi);
};

// "usage: lorica eval --model PATH [--adapter DIR] ..."
std::string UsageOf(const Command& command);
// The whole page of `lorica help COMMAND`.
std::string HelpOf(const Command& command);

// Reads what follows the command's name. Errors end with the usage line.
absl::StatusOr<Arguments> ParseArguments(const Command& command,
                                         absl::Span<const char* const> words);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_COMMAND_LINE_H_
