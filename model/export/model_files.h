// What a Hugging Face directory holds beside the weights: configuration and
// tokenizer.
#ifndef LORICA_MODEL_EXPORT_MODEL_FILES_H_
#define LORICA_MODEL_EXPORT_MODEL_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/gpt_config.h"
#include "model/text/tokenizer_data.h"
#include "runtime/files/gguf.h"
#include "runtime/files/json.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// Writes config.json and the tokenizer's files for weights of `type`. From a
// Hugging Face directory they are copied, the type in config.json changed; from
// a GGUF they are written anew. Errors name what a GGUF says that config.json
// or tokenizer.json cannot; writing.
absl::Status WriteModelFiles(const std::string& model_path,
                             const GptConfig& config, StoredType type,
                             const std::string& directory);

// config.json of the model that the GGUF describes. Error: rotary frequencies
// that come from a table of divisors and from no formula.
absl::StatusOr<Json> ConfigJsonOf(const GgufFile& file, const GptConfig& config,
                                  StoredType type);

// tokenizer.json as the tokenizers library reads it.
Json TokenizerJsonOf(const TokenizerData& data);
// tokenizer_config.json: the roles of tokens and the chat template.
Json TokenizerConfigJsonOf(const TokenizerData& data);

}  // namespace lorica

#endif  // LORICA_MODEL_EXPORT_MODEL_FILES_H_
