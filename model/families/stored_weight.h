// Frozen weights as the files of others hold them.
#ifndef LORICA_MODEL_FAMILIES_STORED_WEIGHT_H_
#define LORICA_MODEL_FAMILIES_STORED_WEIGHT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "model/params.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

struct StoredWeight {
  StoredTensor tensor;
  // Of kTransposed the tensor is [I, O] for a weight [O, I].
  FileOrder file_order = FileOrder::kAsIs;
  // In heads of this many rows the file interleaves the two halves that rope
  // pairs: half h, element j lies at row 2j + h. 0: in Hugging Face's order.
  int64_t interleaved_rows = 0;

  // The file's row that is row `row` of Hugging Face's order.
  int64_t SourceRow(int64_t row) const;
};

// By Hugging Face name.
using StoredWeights = std::map<std::string, StoredWeight, std::less<>>;

}  // namespace lorica

#endif  // LORICA_MODEL_FAMILIES_STORED_WEIGHT_H_
