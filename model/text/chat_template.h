// Conversations as the text a model was tuned on.
#ifndef LORICA_MODEL_TEXT_CHAT_TEMPLATE_H_
#define LORICA_MODEL_TEXT_CHAT_TEMPLATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/text/bpe/regex.h"
#include "model/text/jinja/template.h"
#include "model/text/jinja/value.h"
#include "model/text/tokenizer.h"

namespace lorica {

// A JSON list of {"role": ..., "content": ...}. Messages may have other
// members, which the template may read.
using Messages = jinja::Value;

// Whether the text ends with the opening of an assistant's turn, for the model
// to go on.
enum class GenerationPrompt : uint8_t { kOmit, kInclude };

class ChatTemplate {
 public:
  // Of the tokenizer's own template; fails if it has none. The template sees
  // the texts of its special tokens.
  static absl::StatusOr<ChatTemplate> Create(const Tokenizer& tokenizer);

  // The text transformers' apply_chat_template gives. It holds its special
  // tokens, so encode it without adding any.
  absl::StatusOr<std::string> Render(const Messages& messages,
                                     GenerationPrompt prompt) const;

  // The bytes of the rendered conversation that an assistant said, in order,
  // each turn with what ends it: from behind the generation prompt to where the
  // next message starts. Fails where the template shows earlier turns in
  // another way once later ones follow, since no such bytes exist then.
  struct Conversation {
    std::string text;
    std::vector<ByteRange> assistant;
  };
  absl::StatusOr<Conversation> RenderTurns(const Messages& messages) const;

 private:
  explicit ChatTemplate(jinja::Template jinja) : jinja_(std::move(jinja)) {}

  jinja::Template jinja_;
  jinja::Value special_tokens_;  // bos_token and so on, by name.
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_CHAT_TEMPLATE_H_
