// Which records make which row, and rows as tokens to run.
#ifndef LORICA_MODEL_TEXT_PACKING_H_
#define LORICA_MODEL_TEXT_PACKING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "model/text/dataset.h"
#include "model/token_batch.h"

namespace lorica {

enum class Packing : uint8_t { kRecordPerRow, kPacked };
enum class RecordOrder : uint8_t { kFile, kShuffled };

struct OrderOptions {
  int64_t row_tokens = 512;  // At most, in a row.
  Packing packing = Packing::kPacked;
  RecordOrder order = RecordOrder::kShuffled;
  uint64_t seed = 1;  // Of the shuffle.
};

// The endless sequence of rows: epoch after epoch, each with every record once.
// A function of the records' lengths and the options alone: whoever asks, and
// in whatever order, row r is the same. Packed rows take records in order until
// the next one does not fit; rows are never padded, so what is left open costs
// nothing. The last row of an epoch may be short.
class RowOrder {
 public:
  // `lengths` of the records, each from 1 to row_tokens.
  RowOrder(std::vector<int64_t> lengths, const OrderOptions& options);

  // The records of row `row`, valid until the next call. Cheap within an epoch.
  absl::Span<const int32_t> Row(int64_t row);

 private:
  void BeginEpoch(size_t epoch);

  std::vector<int64_t> lengths_;
  OrderOptions options_;
  // The first row of each epoch met so far and of the one behind them.
  std::vector<int64_t> first_rows_ = {0};
  size_t epoch_ = 0;  // The one below.
  std::vector<int32_t> order_;
  std::vector<int64_t> row_begin_;  // In order_, with the end behind the last.
};

// Rows first .. first + count - 1 as one batch. A token's row_index is
// row * row_tokens + its offset.
TokenBatch MakeBatch(absl::Span<const Record> records, RowOrder* order,
                     int64_t row_tokens, int64_t first, int64_t count);
// All records in file order, for evaluation.
TokenBatch MakeBatch(absl::Span<const Record> records);
// Targets of rows first .. first + count - 1, without making the batch.
int64_t CountTargets(absl::Span<const Record> records, RowOrder* order,
                     int64_t first, int64_t count);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_PACKING_H_
