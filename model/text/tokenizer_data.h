// What defines a tokenizer, whatever file it came from: the common ground of
// tokenizer.json and of GGUF metadata.
#ifndef LORICA_MODEL_TEXT_TOKENIZER_DATA_H_
#define LORICA_MODEL_TEXT_TOKENIZER_DATA_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lorica {

// A token that is found in the text before anything else happens to it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // Not inside a word.
  bool lstrip = false;       // Takes the white space before it along.
  bool rstrip = false;       // Likewise behind it.
  bool normalized = false;   // Sought in the normalized text.
  bool special = false;      // Left out of decoded text on request.
  bool in_model = false;     // Merges may give it, too.
};

enum class Normalizer : uint8_t { kNone, kNfc };

enum class PatternKind : uint8_t { kRegex, kLiteral };

// What becomes of a match: dropped, a word, or part of a neighbour.
enum class SplitBehavior : uint8_t {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

// Splits at the matches of a pattern (Oniguruma syntax), or, inverted, at what
// lies between them.
struct SplitStep {
  std::string pattern;
  PatternKind kind = PatternKind::kRegex;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};

// Splits numbers off: each digit by itself, or runs of them.
struct DigitsStep {
  bool individual = false;
};

// GPT-2's step: perhaps a leading space, perhaps GPT-2's pattern, and then
// bytes written in the byte-level alphabet.
struct ByteLevelStep {
  bool add_prefix_space = false;
  bool use_regex = true;
};

using PreTokenizerStep = std::variant<SplitStep, DigitsStep, ByteLevelStep>;

struct TokenizerData {
  std::vector<std::string> tokens;  // By id; empty where there is no token.
  std::vector<std::pair<std::string, std::string>> merges;  // Best first.
  std::vector<AddedToken> added_tokens;

  Normalizer normalizer = Normalizer::kNone;
  std::vector<PreTokenizerStep> pre_tokenizer;  // ByteLevel is the last one.

  bool ignore_merges = false;  // A word that is a token needs no merges.
  bool fuse_unk = false;       // Neighbouring unknown characters as one.
  std::optional<int32_t> unk;  // For unknown characters, else dropped.

  // What encoding with special tokens puts around a text.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;

  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
  std::optional<int32_t> pad;
  std::string chat_template;  // Empty where there is none.
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_TOKENIZER_DATA_H_
