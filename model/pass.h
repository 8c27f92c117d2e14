// The tokens that one forward and backward run over, on the device.
#ifndef LORICA_MODEL_PASS_H_
#define LORICA_MODEL_PASS_H_

#include <cstdint>
#include <vector>

#include "runtime/tensor.h"

namespace lorica {

struct Pass {
  int64_t tokens = 0;             // T
  Tensor ids;                     // [T] I32
  Tensor positions;               // [T] I32
  std::vector<Segment> segments;  // Records; attention stays inside one.

  // The rows that matter after the last attention, and their targets.
  Tensor selected;  // [C] I32 row numbers; absent: all T rows.
  Tensor targets;   // [C] I32; negative where there is no loss.

  // The dropout of this pass. Rows are numbered in the global batch, so that
  // masks do not depend on who computes a row. Absent in inference.
  Tensor row_index;           // [T] I64
  Tensor selected_row_index;  // [C] I64
  uint64_t seed = 0;
  uint64_t step = 0;

  bool trains() const { return row_index.present(); }
};

}  // namespace lorica

#endif  // LORICA_MODEL_PASS_H_
