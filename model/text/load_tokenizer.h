// The tokenizer that belongs to a model.
#ifndef LORICA_MODEL_TEXT_LOAD_TOKENIZER_H_
#define LORICA_MODEL_TEXT_LOAD_TOKENIZER_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace lorica {

// Of a Hugging Face directory or a GGUF file.
absl::StatusOr<Tokenizer> LoadTokenizer(const std::string& model_path);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_LOAD_TOKENIZER_H_
