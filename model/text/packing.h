// Rows of records as the token batches a model runs on.
#ifndef LORICA_MODEL_TEXT_PACKING_H_
#define LORICA_MODEL_TEXT_PACKING_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "model/text/data_order.h"
#include "model/text/dataset.h"
#include "model/token_batch.h"

namespace lorica {

// The order of a data set's records, those without a target left out; fails if
// that leaves none. No record has more tokens than a row: the data set was read
// with max_tokens = row_tokens.
absl::StatusOr<DataOrder> MakeDataOrder(const Dataset& dataset,
                                        const DataOrderOptions& options);

// Appends a record that starts at token `first_index` of the global batch: all
// its tokens, each with the token after it as target where that is one. The
// last token of a record has none; it is kept, so that a row's tokens are those
// other trainers count.
void AppendRecord(const Record& record, int64_t first_index, TokenBatch* batch);

// The rows [first_row, first_row + num_rows) one after another. row_index is
// row * row_tokens + place in the row, a number no other token of the run has,
// whoever computes the row.
TokenBatch MakeBatch(const Dataset& dataset, int64_t first_row,
                     int64_t num_rows, DataOrder* order);

// All records in their order, for evaluation.
TokenBatch BatchOf(const Dataset& dataset);

// MakeBatch(...).num_targets, without the batch.
int64_t NumTargets(const Dataset& dataset, int64_t first_row, int64_t num_rows,
                   DataOrder* order);

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_PACKING_H_
