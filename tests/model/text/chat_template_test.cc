#include "model/text/chat_template.h"

#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/text/tokenizer_gguf.h"
#include "runtime/files/gguf.h"
#include "tests/support/golden_text.h"

namespace lorica {
namespace {

constexpr char kChatMl[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// In the manner of Llama 2: no generation prompt, texts stripped.
constexpr char kInst[] =
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) "
    "%}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + "
    "' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}";

Tokenizer With(const std::string& chat_template) {
  TokenizerData data = GoldenTokenizerData("smollm");
  data.chat_template = chat_template;
  data.bos = 1;
  data.eos = 2;
  return MakeTokenizer(data);
}

ChatTemplate Make(const std::string& source) {
  absl::StatusOr<ChatTemplate> made = ChatTemplate::Create(With(source));
  EXPECT_TRUE(made.ok()) << made.status();
  return *std::move(made);
}

const Messages& Talk() {
  static const Messages* const kTalk = new Messages(Messages::parse(R"([
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": " Yes?\n"},
    {"role": "user", "content": "No"},
    {"role": "assistant", "content": "OK"}])"));
  return *kTalk;
}

std::vector<std::string> TurnsOf(const ChatTemplate& chat_template,
                                 const Messages& messages) {
  const auto conversation = chat_template.RenderTurns(messages);
  EXPECT_TRUE(conversation.ok()) << conversation.status();
  std::vector<std::string> turns;
  for (const ByteRange& range : conversation->assistant) {
    turns.push_back(
        conversation->text.substr(range.begin, range.end - range.begin));
  }
  return turns;
}

TEST(ChatTemplateTest, TellsTheAssistantsTurnsApart) {
  EXPECT_THAT(TurnsOf(Make(kChatMl), Talk()),
              testing::ElementsAre(" Yes?\n<|im_end|>\n", "OK<|im_end|>\n"));
  EXPECT_THAT(TurnsOf(Make(kInst), Talk()),
              testing::ElementsAre(" Yes? <|im_end|>", " OK <|im_end|>"));
}

TEST(ChatTemplateTest, RefusesTemplatesThatRewriteEarlierTurns) {
  const ChatTemplate last_only = Make(
      "{% for m in messages %}{{ m.content if loop.last else '-' }}"
      "{% endfor %}");
  EXPECT_THAT(std::string(last_only.RenderTurns(Talk()).status().message()),
              testing::HasSubstr("messages[1]: the chat template"));
}

TEST(ChatTemplateTest, ReportsWhatTheTemplateRefuses) {
  const Messages two = Messages::parse(
      R"([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])");
  EXPECT_THAT(std::string(Make(kInst).RenderTurns(two).status().message()),
              testing::HasSubstr("roles must alternate"));
}

TEST(ChatTemplateTest, NeedsATemplate) {
  EXPECT_EQ(ChatTemplate::Create(With("")).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ChatTemplateTest, RendersSmolLm2AsTransformersDoes) {
  const std::string path = SmolLm2Path();
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << path << " is not there; launch/fetch_model.sh gets it";
  }
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const Tokenizer tokenizer = MakeTokenizer(TokenizerFromGguf(*file));
  const auto chat_template = ChatTemplate::Create(tokenizer);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  for (const Json& expected : ReadGolden("smollm2_chat.json")) {
    const Messages messages = Messages::parse(expected["messages"].dump());
    const auto text = chat_template->Render(
        messages, expected["add_generation_prompt"].get<bool>()
                      ? GenerationPrompt::kInclude
                      : GenerationPrompt::kOmit);
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, expected["text"].get<std::string>());
    const auto ids = tokenizer.Encode(*text, SpecialTokens::kOmit);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected["ids"].get<std::vector<int32_t>>());
  }
}

}  // namespace
}  // namespace lorica
