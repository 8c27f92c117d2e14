#include "model/text/load_tokenizer.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "model/text/tokenizer_directory.h"
#include "model/text/tokenizer_gguf.h"
#include "runtime/files/gguf.h"
#include "runtime/status_macros.h"

namespace lorica {

absl::StatusOr<Tokenizer> LoadTokenizer(const std::string& model_path) {
  std::error_code error;
  if (std::filesystem::is_directory(model_path, error)) {
    LORICA_ASSIGN_OR_RETURN(TokenizerData data,
                            ReadTokenizerDirectory(model_path));
    return Tokenizer::Create(std::move(data));
  }
  LORICA_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(model_path));
  LORICA_ASSIGN_OR_RETURN(TokenizerData data, TokenizerFromGguf(file));
  return Tokenizer::Create(std::move(data));
}

}  // namespace lorica
