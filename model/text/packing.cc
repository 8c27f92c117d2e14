#include "model/text/packing.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lorica {

absl::StatusOr<DataOrder> MakeDataOrder(const Dataset& dataset,
                                        const DataOrderOptions& options) {
  if (dataset.num_without_target ==
      static_cast<int64_t>(dataset.records.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "none of the ", dataset.records.size(),
        " records has a token to learn within ", options.row_tokens,
        " tokens; raise data.sequence_length or look at the records"));
  }
  std::vector<int64_t> record_tokens;
  record_tokens.reserve(dataset.records.size());
  for (const Record& record : dataset.records) {
    record_tokens.push_back(record.NumTargets() > 0 ? record.num_tokens() : 0);
  }
  return DataOrder(std::move(record_tokens), options);
}

void AppendRecord(const Record& record, int64_t first_index,
                  TokenBatch* batch) {
  const auto first = static_cast<int64_t>(batch->tokens.size());
  const int64_t count = record.num_tokens();
  for (int64_t i = 0; i < count; ++i) {
    const bool has_target = i + 1 < count && record.is_target[i + 1] != 0;
    batch->tokens.push_back(record.tokens[i]);
    batch->positions.push_back(static_cast<int32_t>(i));
    batch->targets.push_back(has_target ? record.tokens[i + 1] : -1);
    batch->row_index.push_back(first_index + i);
    batch->num_targets += has_target ? 1 : 0;
  }
  batch->segments.push_back({.first_query = first,
                             .num_queries = count,
                             .first_key = first,
                             .num_keys = count});
}

TokenBatch MakeBatch(const Dataset& dataset, int64_t first_row,
                     int64_t num_rows, DataOrder* order) {
  TokenBatch batch;
  for (int64_t row = first_row; row < first_row + num_rows; ++row) {
    int64_t index = row * order->options().row_tokens;
    for (const int64_t r : order->RecordsOf(row)) {
      const Record& record = dataset.records[r];
      AppendRecord(record, index, &batch);
      index += record.num_tokens();
    }
  }
  return batch;
}

TokenBatch BatchOf(const Dataset& dataset) {
  TokenBatch batch;
  for (const Record& record : dataset.records) {
    AppendRecord(record, std::ssize(batch.tokens), &batch);
  }
  return batch;
}

int64_t NumTargets(const Dataset& dataset, int64_t first_row, int64_t num_rows,
                   DataOrder* order) {
  int64_t count = 0;
  for (int64_t row = first_row; row < first_row + num_rows; ++row) {
    for (const int64_t r : order->RecordsOf(row)) {
      count += dataset.records[r].NumTargets();
    }
  }
  return count;
}

}  // namespace lorica
