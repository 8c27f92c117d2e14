// Tokenizers in the metadata of GGUF files.
#ifndef LORICA_MODEL_TEXT_TOKENIZER_GGUF_H_
#define LORICA_MODEL_TEXT_TOKENIZER_GGUF_H_

#include "absl/status/statusor.h"
#include "model/text/tokenizer_data.h"
#include "runtime/files/gguf.h"

namespace lorica {

// From the keys tokenizer.ggml.* and tokenizer.chat_template; only the model
// "gpt2", byte-level BPE. GGUF names the pre-tokenizer instead of describing
// it: a name we do not know is refused with those we do. Control and
// user-defined tokens are found in the text, the former are special.
absl::StatusOr<TokenizerData> TokenizerFromGguf(const GgufFile& file);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_TOKENIZER_GGUF_H_
