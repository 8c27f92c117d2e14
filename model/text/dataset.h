// Records of JSON lines as tokens.
//
//   {"text"}                  the tokenizer's encoding with its own special
//                             tokens, then eos unless the options say not to;
//                             all but the first token are targets
//   {"prompt", "completion"}  the prompt with special tokens, the completion by
//                             itself without, then eos; the completion and eos
//                             are targets
//   {"messages"}              the chat template's text in one piece; what the
//                             assistant says and its end mark are targets
//
// Tokens of a conversation are those of its whole text, as transformers makes
// them. A token is the assistant's if it covers any byte of a turn; white space
// behind a turn's last special token separates turns and is not a target.
#ifndef LORICA_MODEL_TEXT_DATASET_H_
#define LORICA_MODEL_TEXT_DATASET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/tokenizer.h"

namespace lorica {

struct Record {
  std::vector<int32_t> tokens;
  // Whether to predict token i from those before it; never the first.
  std::vector<uint8_t> is_target;
  int64_t line = 0;  // In its file, from 1.

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t NumTargets() const;
};

enum class EndMark : uint8_t { kOmit, kAppendEos };
enum class LongRecords : uint8_t { kCut, kRefuse };

struct DatasetOptions {
  EndMark end_mark = EndMark::kAppendEos;        // Of records of text.
  int64_t max_tokens = 0;                        // A record's; 0: any number.
  LongRecords long_records = LongRecords::kCut;  // Those beyond max_tokens.
};

struct Dataset {
  std::vector<Record> records;  // One for each line that is not blank.
  int64_t num_cut = 0;
  // Those that nothing can be learned from, be it that their targets were cut.
  int64_t num_without_target = 0;
};

// Members of a record beyond those above are ignored. Errors give `name`, the
// line and what is wrong: no JSON object, not UTF-8, a member missing or of
// another type, two forms at once, a conversation that the template refuses.
// At least one record is needed.
absl::StatusOr<Dataset> ParseDataset(absl::string_view lines,
                                     const std::string& name,
                                     const Tokenizer& tokenizer,
                                     const DatasetOptions& options);

absl::StatusOr<Dataset> ReadDataset(const std::string& path,
                                    const Tokenizer& tokenizer,
                                    const DatasetOptions& options);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_DATASET_H_
