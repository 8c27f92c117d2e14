#include "model/text/data_order.h"

#include <algorithm>
#include <utility>

#include "runtime/check.h"
#include "runtime/random.h"

namespace lorica {

DataOrder::DataOrder(std::vector<int64_t> record_tokens,
                     const DataOrderOptions& options)
    : record_tokens_(std::move(record_tokens)), options_(options) {
  CHECK_GT(options_.row_tokens, 0);
  int64_t used = 0;
  for (const int64_t tokens : record_tokens_) {
    CHECK_GE(tokens, 0);
    CHECK_LE(tokens, options_.row_tokens);
    used += tokens > 0 ? 1 : 0;
  }
  CHECK_GT(used, 0) << "no record has a target";
}

// Durstenfeld's shuffle. Index j is off uniform by less than records / 2^32.
std::vector<int64_t> DataOrder::OrderOf(int64_t epoch) const {
  std::vector<int64_t> order;
  for (size_t i = 0; i < record_tokens_.size(); ++i) {
    if (record_tokens_[i] > 0) {
      order.push_back(static_cast<int64_t>(i));
    }
  }
  if (options_.shuffling == Shuffling::kEachEpoch) {
    const RandomField field{
        options_.seed, StreamOf("data order", static_cast<uint64_t>(epoch))};
    for (size_t i = order.size() - 1; i > 0; --i) {
      const uint64_t word = field.Word(i);
      std::swap(order[i], order[word * (i + 1) >> 32]);
    }
  }
  return order;
}

DataOrder::Epoch DataOrder::LayOut(int64_t number) const {
  Epoch epoch{number, {}};
  int64_t room = 0;
  for (const int64_t record : OrderOf(number)) {
    const int64_t tokens = record_tokens_[record];
    if (epoch.rows.empty() || tokens > room ||
        options_.packing == Packing::kOnePerRow) {
      epoch.rows.emplace_back();
      room = options_.row_tokens;
    }
    epoch.rows.back().push_back(record);
    room -= tokens;
  }
  return epoch;
}

const DataOrder::Epoch& DataOrder::EpochAt(int64_t row) {
  CHECK_GE(row, 0);
  const auto epoch_at = [&](int64_t number) -> const Epoch& {
    Epoch& slot = laid_out_[number % 2];
    if (slot.number != number) {
      slot = LayOut(number);
    }
    return slot;
  };
  while (first_rows_.back() <= row) {
    const Epoch& epoch = epoch_at(static_cast<int64_t>(first_rows_.size()) - 1);
    first_rows_.push_back(first_rows_.back() +
                          static_cast<int64_t>(epoch.rows.size()));
  }
  const auto next =
      std::upper_bound(first_rows_.begin(), first_rows_.end(), row);
  return epoch_at(next - first_rows_.begin() - 1);
}

const std::vector<int64_t>& DataOrder::RecordsOf(int64_t row) {
  const Epoch& epoch = EpochAt(row);
  return epoch.rows[row - first_rows_[epoch.number]];
}

double DataOrder::EpochOf(int64_t row) {
  const Epoch& epoch = EpochAt(row);
  return static_cast<double>(epoch.number) +
         static_cast<double>(row - first_rows_[epoch.number]) /
             static_cast<double>(epoch.rows.size());
}

}  // namespace lorica
