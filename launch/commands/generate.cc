#include <cstdio>

#include "absl/strings/str_cat.h"
#include "launch/commands/commands.h"
#include "launch/commands/decoding.h"
#include "launch/commands/inference.h"
#include "launch/config/field_error.h"
#include "model/text/chat_template.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kDetails[] =
    "Continues a prompt and prints the continuation alone, until the model\n"
    "ends it, --max_tokens, or the model's last position. Temperature 0 takes\n"
    "the likeliest token; above it tokens are drawn, and the same seed draws\n"
    "the same ones. Under mpirun the ranks hold a slice of the model each.\n";

absl::Status CheckFlags(const Arguments& arguments) {
  if (arguments.Whole("max_tokens") < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max_tokens is ", arguments.Whole("max_tokens"),
                     "; it must be at least 1"));
  }
  if (arguments.Number("temperature") < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--temperature is ", arguments.Text("temperature"),
                     "; it must not be below 0"));
  }
  return absl::OkStatus();
}

// The prompt as a user's turn of a conversation that the assistant goes on
// with.
absl::StatusOr<std::string> RenderChat(const std::string& prompt,
                                       const Tokenizer& tokenizer) {
  LORICA_ASSIGN_OR_RETURN(const ChatTemplate chat,
                          ChatTemplate::Create(tokenizer));
  return chat.Render(Messages{{{"role", "user"}, {"content", prompt}}},
                     GenerationPrompt::kInclude);
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const Arguments& arguments,
                                                  const Inference& model) {
  std::string text = arguments.Text("prompt");
  SpecialTokens special = SpecialTokens::kInclude;
  if (arguments.Switch("chat")) {
    LORICA_ASSIGN_OR_RETURN(text,
                            Of("--chat", RenderChat(text, model.tokenizer)));
    special = SpecialTokens::kOmit;  // The template writes its own.
  }
  LORICA_ASSIGN_OR_RETURN(
      std::vector<int32_t> ids,
      Of("--prompt", model.tokenizer.Encode(text, special)));
  const int64_t positions = model.base.source.config().max_positions;
  const int64_t tokens = static_cast<int64_t>(ids.size());
  if (tokens == 0) {
    return absl::InvalidArgumentError("--prompt is empty; give it some text");
  }
  if (tokens >= positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("--prompt has ", tokens, " tokens, but the model has ",
                     positions, " positions for prompt and continuation"));
  }
  return ids;
}

absl::Status RunGenerate(const Arguments& arguments,
                         const MpiEnvironment& mpi) {
  LORICA_RETURN_IF_ERROR(CheckFlags(arguments));
  LORICA_ASSIGN_OR_RETURN(const Inference model, OpenInference(arguments, mpi));
  LORICA_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                          EncodePrompt(arguments, model));
  DecodingOptions options = {
      .max_tokens = arguments.Whole("max_tokens"),
      .temperature = arguments.Number("temperature"),
      .seed = static_cast<uint64_t>(arguments.Whole("seed"))};
  if (model.tokenizer.eos()) options.stops.push_back(*model.tokenizer.eos());

  const std::unique_ptr<Gpt> gpt =
      LoadGpt(model.base, model.dtype, kTensorParallel, *model.session,
              model.adapter.get());
  const bool leads = model.session->leads();
  Continue(prompt, options, *gpt, model.adapter.get(), model.session->device(),
           [&](int32_t token) {
             if (!leads) return;
             const std::string bytes =
                 model.tokenizer.DecodeBytes({&token, 1}, SpecialTokens::kOmit);
             std::fwrite(bytes.data(), 1, bytes.size(), stdout);
             std::fflush(stdout);
           });
  if (leads) std::fputs("\n", stdout);
  return absl::OkStatus();
}

}  // namespace

Command GenerateCommand() {
  std::vector<Flag> flags = InferenceFlags();
  flags.insert(
      flags.end(),
      {{.name = "prompt",
        .value_name = "TEXT",
        .presence = Presence::kRequired,
        .help = "what to continue"},
       {.name = "max_tokens",
        .value_name = "N",
        .kind = FlagKind::kWhole,
        .default_value = "128",
        .help = "longest continuation"},
       {.name = "temperature",
        .value_name = "X",
        .kind = FlagKind::kNumber,
        .default_value = "0",
        .help = "0 takes the likeliest token, 1 draws as the model says"},
       {.name = "seed",
        .value_name = "N",
        .kind = FlagKind::kWhole,
        .default_value = "1",
        .help = "of the draws"},
       {.name = "chat",
        .kind = FlagKind::kSwitch,
        .help = "the prompt is a user's turn, in the model's chat template"}});
  return {.name = "generate",
          .summary = "continues a prompt with a model and an adapter",
          .details = kDetails,
          .operand = {},
          .flags = flags,
          .run = RunGenerate};
}

}  // namespace lorica
