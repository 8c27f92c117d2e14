// Tokenizers in Hugging Face's files.
#ifndef LORICA_MODEL_TEXT_TOKENIZER_JSON_H_
#define LORICA_MODEL_TEXT_TOKENIZER_JSON_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/text/tokenizer_data.h"
#include "runtime/files/json.h"

namespace lorica {

// The content of a tokenizer.json. It has no roles (bos, eos) and no chat
// template. What it asks for and we lack is refused by name; its truncation and
// padding are not about the text and are ignored. `place` is named in errors.
absl::StatusOr<TokenizerData> ParseTokenizerJson(const Json& json,
                                                 const std::string& place);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_TOKENIZER_JSON_H_
