#include "model/text/tokenizer_directory.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/text/tokenizer_json.h"
#include "runtime/files/json.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// The text of a token that is written as a string or as an object.
std::string TokenText(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end()) {
    return "";
  }
  if (it->is_object() && it->contains("content") &&
      (*it)["content"].is_string()) {
    return (*it)["content"].get<std::string>();
  }
  return it->is_string() ? it->get<std::string>() : "";
}

// The id of a role in config.json: a number or a list, whose first counts.
std::optional<int32_t> ConfiguredId(const Json& config, const std::string& name,
                                    size_t num_ids) {
  const auto it = config.find(name);
  if (it == config.end()) {
    return std::nullopt;
  }
  const Json& id = it->is_array() && !it->empty() ? it->front() : *it;
  const bool valid = id.is_number_unsigned() && id.get<uint64_t>() < num_ids;
  return valid ? std::optional(id.get<int32_t>()) : std::nullopt;
}

// A file of a directory, or an empty object where there is none.
absl::StatusOr<Json> ReadOptional(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    return Json::object();
  }
  LORICA_ASSIGN_OR_RETURN(Json json, ReadJsonFile(path.string()));
  LORICA_RETURN_IF_ERROR(JsonFields::Of(json, path.string()).status());
  return json;
}

absl::Status ReadRoles(const std::filesystem::path& directory,
                       const Json& tokenizer_config, TokenizerData* data) {
  LORICA_ASSIGN_OR_RETURN(const Json map,
                          ReadOptional(directory / "special_tokens_map.json"));
  LORICA_ASSIGN_OR_RETURN(const Json config,
                          ReadOptional(directory / "config.json"));
  const std::pair<const char*, std::optional<int32_t>*> roles[] = {
      {"bos_token", &data->bos},
      {"eos_token", &data->eos},
      {"pad_token", &data->pad}};
  for (const auto& [name, id] : roles) {
    std::string text = TokenText(tokenizer_config, name);
    if (text.empty()) {
      text = TokenText(map, name);
    }
    const auto it = std::find(data->tokens.begin(), data->tokens.end(), text);
    if (text.empty()) {
      *id =
          ConfiguredId(config, absl::StrCat(name, "_id"), data->tokens.size());
    } else if (it != data->tokens.end()) {
      *id = static_cast<int32_t>(it - data->tokens.begin());
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat((directory / "tokenizer_config.json").string(), ": ",
                       name, " is '", text,
                       "', which is not in the vocabulary "
                       "of tokenizer.json"));
    }
  }
  return absl::OkStatus();
}

// The template itself, or the one named "default" of a list.
std::string TemplateOf(const Json& tokenizer_config) {
  const auto it = tokenizer_config.find("chat_template");
  if (it == tokenizer_config.end()) {
    return "";
  }
  if (it->is_array()) {
    for (const Json& named : *it) {
      if (named.is_object() && TokenText(named, "name") == "default") {
        return TokenText(named, "template");
      }
    }
  }
  return it->is_string() ? it->get<std::string>() : "";
}

}  // namespace

absl::StatusOr<TokenizerData> ReadTokenizerDirectory(
    const std::string& directory) {
  const std::filesystem::path folder(directory);
  const std::string path = (folder / "tokenizer.json").string();
  LORICA_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path));
  LORICA_ASSIGN_OR_RETURN(TokenizerData data, ParseTokenizerJson(json, path));
  LORICA_ASSIGN_OR_RETURN(const Json config,
                          ReadOptional(folder / "tokenizer_config.json"));
  LORICA_RETURN_IF_ERROR(ReadRoles(folder, config, &data));
  data.chat_template = TemplateOf(config);
  const std::filesystem::path jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) {
    LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                            MappedFile::Open(jinja.string()));
    data.chat_template = std::string(file->bytes());
  }
  return data;
}

}  // namespace lorica
