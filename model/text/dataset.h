// Records of text, as tokens.
#ifndef LORICA_MODEL_TEXT_DATASET_H_
#define LORICA_MODEL_TEXT_DATASET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace lorica {

struct Record {
  std::vector<int32_t> tokens;
  // Whether the loss counts how well token i is predicted from those before.
  // Never true of the first.
  std::vector<uint8_t> trained;
};

enum class Overlong : uint8_t { kCut, kRefuse };

struct DatasetOptions {
  bool append_eos = true;
  int64_t max_tokens = 512;  // Of a record.
  Overlong overlong = Overlong::kCut;
};

struct Dataset {
  std::vector<Record> records;
  int64_t cut = 0;        // Records that were cut to max_tokens.
  int64_t untrained = 0;  // Records without a trained token, after cutting.
};

// Reads a JSONL file, an object a line, blank lines skipped:
//
//   {"text"}                  special tokens around it, eos; all but the first
//                             token trained
//   {"prompt", "completion"}  prompt with its special prefix, completion
//                             encoded by itself, eos; completion and eos
//                             trained
//   {"messages": [{"role", "content"}]}
//                             the chat template; assistant turns and their end
//                             mark trained
//
// Other keys are ignored. Errors name file and line: malformed JSON or UTF-8,
// none of these shapes, an overlong record that is to be refused. A file
// without records, or without a single trained token, is an error.
absl::StatusOr<Dataset> LoadDataset(const std::string& path,
                                    const Tokenizer& tokenizer,
                                    const DatasetOptions& options);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_DATASET_H_
