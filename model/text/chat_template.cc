#include "model/text/chat_template.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// The first `count` messages.
Messages Prefix(const Messages& messages, size_t count) {
  Messages prefix = Messages::array();
  for (size_t i = 0; i < count; ++i) {
    prefix.push_back(messages[i]);
  }
  return prefix;
}

bool IsAssistant(const jinja::Value& message) {
  return message.is_object() && message.contains("role") &&
         message["role"] == "assistant";
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Create(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty()) {
    return absl::FailedPreconditionError(
        "the model has no chat template; give records as text or as prompt "
        "and completion");
  }
  LORICA_ASSIGN_OR_RETURN(jinja::Template parsed,
                          jinja::Template::Create(tokenizer.chat_template()));
  ChatTemplate result(std::move(parsed));
  result.special_tokens_ = jinja::Value::object();
  const std::pair<const char*, std::optional<int32_t>> roles[] = {
      {"bos_token", tokenizer.bos()},
      {"eos_token", tokenizer.eos()},
      {"pad_token", tokenizer.pad()}};
  for (const auto& [name, id] : roles) {
    if (id.has_value()) {
      result.special_tokens_[name] = tokenizer.token(*id);
    }
  }
  return result;
}

absl::StatusOr<std::string> ChatTemplate::Render(
    const Messages& messages, GenerationPrompt prompt) const {
  jinja::Value variables = special_tokens_;
  variables["messages"] = messages;
  variables["add_generation_prompt"] = prompt == GenerationPrompt::kInclude;
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  return jinja_.Render(variables);
}

absl::StatusOr<ChatTemplate::Conversation> ChatTemplate::RenderTurns(
    const Messages& messages) const {
  Conversation conversation;
  LORICA_ASSIGN_OR_RETURN(conversation.text,
                          Render(messages, GenerationPrompt::kOmit));
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!IsAssistant(messages[i])) {
      continue;
    }
    LORICA_ASSIGN_OR_RETURN(
        const std::string before,
        Render(Prefix(messages, i), GenerationPrompt::kInclude));
    LORICA_ASSIGN_OR_RETURN(
        const std::string with,
        Render(Prefix(messages, i + 1), GenerationPrompt::kOmit));
    if (!absl::StartsWith(with, before) ||
        !absl::StartsWith(conversation.text, with)) {
      return absl::UnimplementedError(absl::StrCat(
          "messages[", i,
          "]: the chat template shows this turn otherwise within the "
          "conversation than after what precedes it, so what the assistant "
          "said cannot be told apart; shorten the conversation or give prompt "
          "and completion"));
    }
    conversation.assistant.push_back({before.size(), with.size()});
  }
  return conversation;
}

}  // namespace lorica
