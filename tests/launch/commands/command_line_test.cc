#include "launch/commands/command_line.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gmock/gmock.h"

namespace lorica {
namespace {

using testing::ElementsAre;

absl::Status RunNothing(const Arguments&, const MpiEnvironment&) {
  return absl::OkStatus();
}

const Command& Sample() {
  static const Command command = {
      .name = "sample",
      .summary = "shows every kind of flag",
      .details = "Does nothing.\n",
      .operand = {"PATH", Presence::kOptional},
      .flags = {{.name = "model",
                 .value_name = "PATH",
                 .presence = Presence::kRequired,
                 .help = "the model"},
                {.name = "tokens",
                 .value_name = "N",
                 .kind = FlagKind::kWhole,
                 .default_value = "64",
                 .help = "how many"},
                {.name = "heat",
                 .value_name = "X",
                 .kind = FlagKind::kNumber,
                 .default_value = "0",
                 .help = "how wild"},
                {.name = "dtype",
                 .value_name = "f32|bf16",
                 .kind = FlagKind::kChoice,
                 .default_value = "f32",
                 .help = "how exact"},
                {.name = "set",
                 .value_name = "PATH=VALUE",
                 .presence = Presence::kRepeated,
                 .help = "a field"},
                {.name = "chat", .kind = FlagKind::kSwitch, .help = "talk"}},
      .run = RunNothing};
  return command;
}

constexpr char kUsage[] =
    "usage: lorica sample --model PATH [--tokens N] [--heat X] "
    "[--dtype f32|bf16] [--set PATH=VALUE ...] [--chat] [PATH]";

std::string ErrorOf(const std::vector<const char*>& words) {
  const auto arguments = ParseArguments(Sample(), words);
  return arguments.ok() ? "no error"
                        : std::string(arguments.status().message());
}

TEST(CommandLineTest, ValuesAndDefaultsAreRead) {
  const auto arguments =
      ParseArguments(Sample(), {"--model=m=1", "file", "--set", "a=1",
                                "--tokens", "-3", "--set=b=2", "--chat"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(arguments->Text("model"), "m=1");
  EXPECT_EQ(arguments->operand(), "file");
  EXPECT_EQ(arguments->Whole("tokens"), -3);
  EXPECT_EQ(arguments->Number("heat"), 0.0);
  EXPECT_FALSE(arguments->Has("heat"));
  EXPECT_EQ(arguments->Text("dtype"), "f32");
  EXPECT_THAT(arguments->Texts("set"), ElementsAre("a=1", "b=2"));
  EXPECT_TRUE(arguments->Switch("chat"));
}

TEST(CommandLineTest, AnEmptyValueIsAValue) {
  const auto arguments = ParseArguments(Sample(), {"--model", ""});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_TRUE(arguments->Has("model"));
}

TEST(CommandLineTest, ErrorsSayWhatIsWrongAndShowTheUsage) {
  const auto with_usage = [](const std::string& message) {
    return message + "\n" + kUsage;
  };
  EXPECT_EQ(ErrorOf({}), with_usage("--model PATH is missing"));
  EXPECT_EQ(ErrorOf({"--model"}), with_usage("--model needs a value"));
  EXPECT_EQ(ErrorOf({"--modle", "x"}), with_usage("there is no flag --modle"));
  EXPECT_EQ(ErrorOf({"--model=a", "--model=b"}),
            with_usage("--model is given twice"));
  EXPECT_EQ(ErrorOf({"--model=a", "b", "c"}),
            with_usage("\"c\" is one argument too many"));
  EXPECT_EQ(ErrorOf({"--model=a", "--tokens=1.5"}),
            with_usage("--tokens is \"1.5\"; it must be a whole number"));
  EXPECT_EQ(ErrorOf({"--model=a", "--heat=nan"}),
            with_usage("--heat is \"nan\"; it must be a number"));
  EXPECT_EQ(ErrorOf({"--model=a", "--dtype=f16"}),
            with_usage("--dtype is \"f16\"; it must be one of f32|bf16"));
  EXPECT_EQ(ErrorOf({"--model=a", "--chat=yes"}),
            with_usage("--chat takes no value"));
}

TEST(CommandLineTest, ARequiredOperandIsAskedFor) {
  Command command = Sample();
  command.operand.presence = Presence::kRequired;
  const auto arguments = ParseArguments(command, {"--model=a"});
  ASSERT_FALSE(arguments.ok());
  EXPECT_EQ(std::string(arguments.status().message()).substr(0, 15),
            "PATH is missing");
}

TEST(CommandLineTest, ACommandMayTakeTwoOperands) {
  Command command = Sample();
  command.operand.most = 2;
  const auto arguments = ParseArguments(command, {"a", "--model=m", "b"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_THAT(arguments->operands(), ElementsAre("a", "b"));
  EXPECT_FALSE(ParseArguments(command, {"--model=m", "a", "b", "c"}).ok());
  EXPECT_THAT(UsageOf(command), testing::EndsWith("[--chat] [PATH] [PATH]"));
}

TEST(CommandLineTest, HelpListsEveryFlagWithItsDefault) {
  EXPECT_EQ(HelpOf(Sample()),
            std::string(kUsage) +
                "\n\nDoes nothing.\n\n"
                "  --model PATH           the model\n"
                "  --tokens N             how many (default 64)\n"
                "  --heat X               how wild (default 0)\n"
                "  --dtype f32|bf16       how exact (default f32)\n"
                "  --set PATH=VALUE       a field\n"
                "  --chat                 talk\n");
}

}  // namespace
}  // namespace lorica
