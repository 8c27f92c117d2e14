#include "model/text/tokenizer_gguf.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// What tokenizer.ggml.pre stands for, as the models' own tokenizer.json say.
enum class Words : uint8_t { kGpt2, kDigitsAndGpt2, kLlama3, kQwen2 };

struct PreName {
  const char* name;
  Words words;
};

// "default" stands where a converter did not know; GPT-2's words are what it
// was before GGUF had names.
constexpr PreName kPreNames[] = {
    {"default", Words::kGpt2},
    {"gpt-2", Words::kGpt2},
    {"phi-2", Words::kGpt2},
    {"smollm", Words::kDigitsAndGpt2},
    {"starcoder", Words::kDigitsAndGpt2},
    {"llama-bpe", Words::kLlama3},
    {"llama3", Words::kLlama3},
    {"llama-v3", Words::kLlama3},
    {"qwen2", Words::kQwen2},
};

constexpr int64_t kControlToken = 3;
constexpr int64_t kUserDefinedToken = 4;

// The patterns of Llama 3 and Qwen 2 differ in how many digits are a word.
PreTokenizerStep SplitWithDigits(absl::string_view digits) {
  return SplitStep{
      .pattern = absl::StrCat(
          R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)", digits,
          R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)")};
}

void SetWords(Words words, TokenizerData* data) {
  ByteLevelStep byte_level;
  switch (words) {
    case Words::kGpt2:
      break;
    case Words::kDigitsAndGpt2:
      data->pre_tokenizer.push_back(DigitsStep{.individual = true});
      break;
    case Words::kLlama3:
      data->pre_tokenizer.push_back(SplitWithDigits(R"(\p{N}{1,3})"));
      data->ignore_merges = true;
      byte_level.use_regex = false;
      break;
    case Words::kQwen2:
      data->normalizer = Normalizer::kNfc;
      data->pre_tokenizer.push_back(SplitWithDigits(R"(\p{N})"));
      byte_level.use_regex = false;
      break;
  }
  data->pre_tokenizer.push_back(byte_level);
}

absl::Status Refuse(const GgufFile& file, absl::string_view key,
                    absl::string_view reason) {
  return absl::InvalidArgumentError(
      absl::StrCat(file.path(), ": ", key, ": ", reason));
}

absl::Status ReadPre(const GgufFile& file, Words* words) {
  std::string name = "default";
  LORICA_RETURN_IF_ERROR(file.Read("tokenizer.ggml.pre", &name));
  const auto* known =
      std::find_if(std::begin(kPreNames), std::end(kPreNames),
                   [&](const PreName& pre) { return name == pre.name; });
  if (known == std::end(kPreNames)) {
    const auto append_name = [](std::string* out, const PreName& pre) {
      out->append(pre.name);
    };
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": tokenizer.ggml.pre is '", name,
                     "', which is not supported; supported: ",
                     absl::StrJoin(kPreNames, ", ", append_name)));
  }
  *words = known->words;
  return absl::OkStatus();
}

absl::Status ReadMerges(const GgufFile& file, TokenizerData* data) {
  std::vector<std::string> merges;
  LORICA_RETURN_IF_ERROR(file.Require("tokenizer.ggml.merges", &merges));
  for (const std::string& merge : merges) {
    std::vector<std::string> parts = absl::StrSplit(merge, ' ');
    if (parts.size() != 2) {
      return Refuse(file, "tokenizer.ggml.merges",
                    absl::StrCat("merge ", data->merges.size(),
                                 " is not \"left right\""));
    }
    data->merges.emplace_back(std::move(parts[0]), std::move(parts[1]));
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const GgufFile& file, TokenizerData* data) {
  std::vector<int64_t> types;
  LORICA_RETURN_IF_ERROR(file.Read("tokenizer.ggml.token_type", &types));
  if (!types.empty() && types.size() != data->tokens.size()) {
    return Refuse(file, "tokenizer.ggml.token_type",
                  absl::StrCat(types.size(), " types for ", data->tokens.size(),
                               " tokens"));
  }
  for (size_t id = 0; id < types.size(); ++id) {
    const bool control = types[id] == kControlToken;
    if ((control || types[id] == kUserDefinedToken) &&
        !data->tokens[id].empty()) {
      data->added_tokens.push_back({.id = static_cast<int32_t>(id),
                                    .content = data->tokens[id],
                                    .special = control});
    }
  }
  return absl::OkStatus();
}

// The id of a role, where the file has one; -1 is how some say none.
absl::Status ReadRole(const GgufFile& file, absl::string_view role,
                      const TokenizerData& data, std::optional<int32_t>* id) {
  const std::string key = absl::StrCat("tokenizer.ggml.", role, "_token_id");
  int64_t value = -1;
  LORICA_RETURN_IF_ERROR(file.Read(key, &value));
  if (value >= static_cast<int64_t>(data.tokens.size())) {
    return Refuse(file, key,
                  absl::StrCat(value, " is no token of the vocabulary of ",
                               data.tokens.size()));
  }
  if (value >= 0) {
    *id = static_cast<int32_t>(value);
  }
  return absl::OkStatus();
}

// Whether encoding adds bos and eos.
absl::Status ReadAround(const GgufFile& file, Words words,
                        TokenizerData* data) {
  bool add_bos = words == Words::kLlama3;
  bool add_eos = false;
  LORICA_RETURN_IF_ERROR(file.Read("tokenizer.ggml.add_bos_token", &add_bos));
  LORICA_RETURN_IF_ERROR(file.Read("tokenizer.ggml.add_eos_token", &add_eos));
  if (add_bos && !data->bos.has_value()) {
    return Refuse(file, "tokenizer.ggml.bos_token_id",
                  "missing, though a bos is to be added");
  }
  if (add_eos && !data->eos.has_value()) {
    return Refuse(file, "tokenizer.ggml.eos_token_id",
                  "missing, though an eos is to be added");
  }
  if (add_bos) {
    data->prefix = {*data->bos};
  }
  if (add_eos) {
    data->suffix = {*data->eos};
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerData> TokenizerFromGguf(const GgufFile& file) {
  std::string model;
  LORICA_RETURN_IF_ERROR(file.Require("tokenizer.ggml.model", &model));
  if (model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat(
        file.path(), ": tokenizer.ggml.model is '", model,
        "', which is not supported; supported: gpt2 (byte-level BPE)"));
  }
  TokenizerData data;
  Words words;
  LORICA_RETURN_IF_ERROR(ReadPre(file, &words));
  SetWords(words, &data);
  LORICA_RETURN_IF_ERROR(file.Require("tokenizer.ggml.tokens", &data.tokens));
  LORICA_RETURN_IF_ERROR(ReadMerges(file, &data));
  LORICA_RETURN_IF_ERROR(ReadAddedTokens(file, &data));
  LORICA_RETURN_IF_ERROR(ReadRole(file, "bos", data, &data.bos));
  LORICA_RETURN_IF_ERROR(ReadRole(file, "eos", data, &data.eos));
  LORICA_RETURN_IF_ERROR(ReadRole(file, "padding", data, &data.pad));
  LORICA_RETURN_IF_ERROR(ReadAround(file, words, &data));
  LORICA_RETURN_IF_ERROR(
      file.Read("tokenizer.chat_template", &data.chat_template));
  return data;
}

}  // namespace lorica
