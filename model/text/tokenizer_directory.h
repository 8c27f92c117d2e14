// The tokenizer of a Hugging Face model directory.
#ifndef LORICA_MODEL_TEXT_TOKENIZER_DIRECTORY_H_
#define LORICA_MODEL_TEXT_TOKENIZER_DIRECTORY_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/text/tokenizer_data.h"

namespace lorica {

// From tokenizer.json; bos, eos and pad from
// tokenizer_config.json, else special_tokens_map.json, else config.json; the
// chat template from chat_template.jinja, else tokenizer_config.json. All but
// the first may be missing.
absl::StatusOr<TokenizerData> ReadTokenizerDirectory(
    const std::string& directory);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_TOKENIZER_DIRECTORY_H_
