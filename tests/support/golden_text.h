// The tokenizers and texts of tests/golden.
#ifndef LORICA_TESTS_SUPPORT_GOLDEN_TEXT_H_
#define LORICA_TESTS_SUPPORT_GOLDEN_TEXT_H_

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_json.h"
#include "runtime/files/json.h"

namespace lorica {

inline Json ReadGolden(const std::string& name) {
  absl::StatusOr<Json> json = ReadJsonFile("tests/golden/" + name);
  EXPECT_TRUE(json.ok()) << json.status();
  return json.value_or(Json::array());
}

inline TokenizerData GoldenTokenizerData(const std::string& name) {
  const std::string path = "tokenizers/" + name + ".json";
  absl::StatusOr<TokenizerData> data =
      ParseTokenizerJson(ReadGolden(path), path);
  EXPECT_TRUE(data.ok()) << data.status();
  return *std::move(data);
}

inline Tokenizer MakeTokenizer(absl::StatusOr<TokenizerData> data) {
  EXPECT_TRUE(data.ok()) << data.status();
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(*std::move(data));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// Where SmolLM2-135M-Instruct is, if it is: not in the repository.
inline std::string SmolLm2Path() {
  const char* variable = std::getenv("LORICA_MODEL");
  return variable != nullptr ? variable : "models/SmolLM2-135M-Instruct.gguf";
}

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_GOLDEN_TEXT_H_
