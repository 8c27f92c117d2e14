#include "model/export/model_files.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/families/llama.h"
#include "model/text/tokenizer_gguf.h"
#include "runtime/check.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Whatever of these a directory has belongs to its tokenizer or to generation.
constexpr const char* kCopiedFiles[] = {
    "added_tokens.json", "chat_template.jinja",     "generation_config.json",
    "merges.txt",        "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model",   "tokenizer_config.json",   "vocab.json"};

const char* TorchName(StoredType type) {
  switch (type) {
    case StoredType::kBF16:
      return "bfloat16";
    case StoredType::kF16:
      return "float16";
    default:
      CHECK_EQ(type, StoredType::kF32);
      return "float32";
  }
}

absl::Status WriteJson(const std::string& path, const Json& json) {
  // A GGUF's texts may hold bytes that are not UTF-8: they are replaced.
  return WriteFileAtomically(
      path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

absl::Status CopyFiles(const std::string& from, StoredType type,
                       const std::string& to) {
  LORICA_ASSIGN_OR_RETURN(Json config,
                          ReadJsonFile(absl::StrCat(from, "/config.json")));
  // The newer name where the file has it; transformers reads both.
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = TorchName(type);
  LORICA_RETURN_IF_ERROR(WriteJson(absl::StrCat(to, "/config.json"), config));
  for (const char* name : kCopiedFiles) {
    const std::string path = absl::StrCat(from, "/", name);
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                            MappedFile::Open(path));
    LORICA_RETURN_IF_ERROR(
        WriteFileAtomically(absl::StrCat(to, "/", name), file->bytes()));
  }
  return absl::OkStatus();
}

// The keys of a GGUF that say how positions turn; see LlamaFromGguf.
absl::StatusOr<Json> RopeJsonOf(const GgufFile& file, const GptConfig& config,
                                double* theta) {
  const auto key = [&](const char* name) {
    return LlamaKeyInGguf(config, name);
  };
  *theta = 10000.0;
  LORICA_RETURN_IF_ERROR(file.Read(key("rope.freq_base"), theta));
  double factor = 1.0;
  LORICA_RETURN_IF_ERROR(file.Read(key("rope.scale_linear"), &factor));
  LORICA_RETURN_IF_ERROR(file.Read(key("rope.scaling.factor"), &factor));
  std::string type = file.Has(key("rope.scale_linear")) ? "linear" : "none";
  LORICA_RETURN_IF_ERROR(file.Read(key("rope.scaling.type"), &type));
  return type == "linear" ? Json{{"rope_type", "linear"}, {"factor", factor}}
                          : Json();
}

void PutRole(const char* name, const std::optional<int32_t>& id, Json* json) {
  (*json)[name] = id.has_value() ? Json(*id) : Json();
}

absl::Status WriteFilesOfGguf(const std::string& path, const GptConfig& config,
                              StoredType type, const std::string& to) {
  LORICA_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(path));
  LORICA_ASSIGN_OR_RETURN(Json json, ConfigJsonOf(file, config, type));
  // A GGUF without a tokenizer is still a model.
  const bool tokenizer = file.Has("tokenizer.ggml.model");
  if (tokenizer) {
    LORICA_ASSIGN_OR_RETURN(const TokenizerData data, TokenizerFromGguf(file));
    PutRole("bos_token_id", data.bos, &json);
    PutRole("eos_token_id", data.eos, &json);
    PutRole("pad_token_id", data.pad, &json);
    LORICA_RETURN_IF_ERROR(
        WriteJson(absl::StrCat(to, "/tokenizer.json"), TokenizerJsonOf(data)));
    LORICA_RETURN_IF_ERROR(WriteJson(absl::StrCat(to, "/tokenizer_config.json"),
                                     TokenizerConfigJsonOf(data)));
  }
  return WriteJson(absl::StrCat(to, "/config.json"), json);
}

}  // namespace

absl::StatusOr<Json> ConfigJsonOf(const GgufFile& file, const GptConfig& config,
                                  StoredType type) {
  double theta = 0;
  LORICA_ASSIGN_OR_RETURN(const Json scaling, RopeJsonOf(file, config, &theta));
  // As the decimal that the float was written as.
  double epsilon = config.norm_epsilon;
  CHECK(absl::SimpleAtod(absl::StrCat(config.norm_epsilon), &epsilon));
  Json json = {{"architectures", Json::array({config.architecture})},
               {"model_type", ArchitectureInGguf(config)},
               {"vocab_size", config.vocab_size},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.num_layers},
               {"num_attention_heads", config.num_heads},
               {"num_key_value_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"max_position_embeddings", config.max_positions},
               {"rms_norm_eps", epsilon},
               {"rope_theta", theta},
               {"rope_scaling", scaling},
               {"hidden_act", "silu"},
               {"attention_bias", false},
               {"mlp_bias", false},
               {"tie_word_embeddings", config.tied_head},
               {"torch_dtype", TorchName(type)}};
  // What is written must read as the same model.
  LORICA_ASSIGN_OR_RETURN(const GptConfig again,
                          LlamaFromJson(json, file.path()));
  CHECK(again.hidden_size == config.hidden_size &&
        again.num_kv_heads == config.num_kv_heads &&
        again.norm_epsilon == config.norm_epsilon);
  if (again.rope.inv_freq != config.rope.inv_freq) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(),
        ": its tensor rope_freqs.weight scales the rotary frequencies in a way "
        "that config.json has no keys for; give --model the Hugging Face "
        "directory of this model"));
  }
  return json;
}

absl::Status WriteModelFiles(const std::string& model_path,
                             const GptConfig& config, StoredType type,
                             const std::string& directory) {
  std::error_code error;
  return std::filesystem::is_directory(model_path, error)
             ? CopyFiles(model_path, type, directory)
             : WriteFilesOfGguf(model_path, config, type, directory);
}

}  // namespace lorica
