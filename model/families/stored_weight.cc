#include "model/families/stored_weight.h"

namespace lorica {

int64_t StoredWeight::SourceRow(int64_t row) const {
  if (interleaved_rows == 0) {
    return row;
  }
  const int64_t half_rows = interleaved_rows / 2;
  const int64_t head = row / interleaved_rows;
  const int64_t within = row % interleaved_rows;
  return head * interleaved_rows + 2 * (within % half_rows) +
         within / half_rows;
}

}  // namespace lorica
