#include "model/text/packing.h"

#include <numeric>
#include <utility>

#include "runtime/check.h"
#include "runtime/random.h"

namespace lorica {
namespace {

// Fisher and Yates, with the random word of each place.
void Shuffle(uint64_t seed, uint64_t epoch, std::vector<int32_t>* order) {
  const RandomField field = {seed, StreamOf("data.order", epoch)};
  for (size_t i = order->size(); i > 1; --i) {
    const uint64_t word = field.Word(i - 1);
    std::swap((*order)[i - 1], (*order)[(word * i) >> 32]);
  }
}

void Append(const Record& record, int64_t first_index, TokenBatch* batch) {
  const auto first = static_cast<int64_t>(batch->tokens.size());
  const auto tokens = static_cast<int64_t>(record.tokens.size());
  batch->segments.push_back({.first_query = first,
                             .num_queries = tokens,
                             .first_key = first,
                             .num_keys = tokens});
  for (int64_t i = 0; i < tokens; ++i) {
    const auto next = static_cast<size_t>(i + 1);
    const bool trained = i + 1 < tokens && record.trained[next] != 0;
    batch->tokens.push_back(record.tokens[static_cast<size_t>(i)]);
    batch->positions.push_back(static_cast<int32_t>(i));
    batch->targets.push_back(trained ? record.tokens[next] : -1);
    batch->row_index.push_back(first_index + i);
    batch->num_targets += trained ? 1 : 0;
  }
}

}  // namespace

RowOrder::RowOrder(std::vector<int64_t> lengths, const OrderOptions& options)
    : lengths_(std::move(lengths)), options_(options) {
  CHECK(!lengths_.empty());
  BeginEpoch(0);
}

void RowOrder::BeginEpoch(size_t epoch) {
  epoch_ = epoch;
  order_.resize(lengths_.size());
  std::iota(order_.begin(), order_.end(), 0);
  if (options_.order == RecordOrder::kShuffled) {
    Shuffle(options_.seed, epoch, &order_);
  }
  row_begin_ = {0};
  int64_t tokens = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    const int64_t length = lengths_[static_cast<size_t>(order_[i])];
    CHECK(1 <= length && length <= options_.row_tokens) << length;
    const bool joins = options_.packing == Packing::kPacked &&
                       tokens + length <= options_.row_tokens;
    if (i > 0 && !joins) {
      row_begin_.push_back(static_cast<int64_t>(i));
      tokens = 0;
    }
    tokens += length;
  }
  row_begin_.push_back(std::ssize(order_));
  if (epoch + 1 == first_rows_.size()) {
    first_rows_.push_back(first_rows_.back() + std::ssize(row_begin_) - 1);
  }
}

absl::Span<const int32_t> RowOrder::Row(int64_t row) {
  CHECK_GE(row, 0);
  while (row >= first_rows_.back()) BeginEpoch(first_rows_.size() - 1);
  size_t epoch = epoch_;
  while (row < first_rows_[epoch]) --epoch;
  while (row >= first_rows_[epoch + 1]) ++epoch;
  if (epoch != epoch_) BeginEpoch(epoch);
  const auto i = static_cast<size_t>(row - first_rows_[epoch]);
  return absl::MakeConstSpan(order_).subspan(
      static_cast<size_t>(row_begin_[i]),
      static_cast<size_t>(row_begin_[i + 1] - row_begin_[i]));
}

TokenBatch MakeBatch(absl::Span<const Record> records, RowOrder* order,
                     int64_t row_tokens, int64_t first, int64_t count) {
  TokenBatch batch;
  for (int64_t row = first; row < first + count; ++row) {
    int64_t index = row * row_tokens;
    for (const int32_t r : order->Row(row)) {
      const Record& record = records[static_cast<size_t>(r)];
      Append(record, index, &batch);
      index += std::ssize(record.tokens);
    }
  }
  return batch;
}

TokenBatch MakeBatch(absl::Span<const Record> records) {
  TokenBatch batch;
  for (const Record& record : records) {
    Append(record, std::ssize(batch.tokens), &batch);
  }
  return batch;
}

int64_t CountTargets(absl::Span<const Record> records, RowOrder* order,
                     int64_t first, int64_t count) {
  int64_t targets = 0;
  for (int64_t row = first; row < first + count; ++row) {
    for (const int32_t r : order->Row(row)) {
      const Record& record = records[static_cast<size_t>(r)];
      targets += std::accumulate(record.trained.begin(), record.trained.end(),
                                 int64_t{0});
    }
  }
  return targets;
}

}  // namespace lorica
