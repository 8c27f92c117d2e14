// Which records make up which row of a run.
#ifndef LORICA_MODEL_TEXT_DATA_ORDER_H_
#define LORICA_MODEL_TEXT_DATA_ORDER_H_

#include <array>
#include <cstdint>
#include <vector>

namespace lorica {

enum class Packing : uint8_t { kOnePerRow, kSeveralPerRow };
enum class Shuffling : uint8_t { kFileOrder, kEachEpoch };

struct DataOrderOptions {
  int64_t row_tokens = 512;  // At most, in a row.
  Packing packing = Packing::kSeveralPerRow;
  Shuffling shuffling = Shuffling::kEachEpoch;
  uint64_t seed = 1;  // Of the shuffles.
};

// An endless sequence of rows: epoch after epoch, each visiting every record
// once in an order that is a function of seed and epoch alone. A row takes
// records as they come while they fit (next fit), so rows are short by less
// than the next record; nothing is padded, so that costs no time. An epoch
// begins a new row.
//
// Rows are reached in any order, at the price of laying out once the epochs up
// to the row: a shuffle each. Going forth and back between neighbouring epochs
// costs nothing. Not for concurrent use.
class DataOrder {
 public:
  // `record_tokens` has an entry a record, from 1 to row_tokens; records of no
  // token or of no target should have entry 0, and no row takes them. One entry
  // is positive.
  DataOrder(std::vector<int64_t> record_tokens,
            const DataOrderOptions& options);

  // The records of global row `row`, from 0, in order. The result holds until
  // the next call.
  const std::vector<int64_t>& RecordsOf(int64_t row);

  // The epoch of a row, and where in it, from 0 up to 1: for reports.
  double EpochOf(int64_t row);

  const DataOrderOptions& options() const { return options_; }

 private:
  struct Epoch {
    int64_t number = -1;
    std::vector<std::vector<int64_t>> rows;
  };

  std::vector<int64_t> OrderOf(int64_t epoch) const;
  Epoch LayOut(int64_t number) const;
  const Epoch& EpochAt(int64_t row);

  std::vector<int64_t> record_tokens_;
  DataOrderOptions options_;
  std::vector<int64_t> first_rows_ = {0};  // Of the epochs known so far.
  std::array<Epoch, 2> laid_out_;          // By the epoch's parity.
};

}  // namespace lorica

#endif  // LORICA_MODEL_TEXT_DATA_ORDER_H_
