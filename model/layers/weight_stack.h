// The frozen weights of one linear layer in one matrix with the adapter's
// factors, for devices of LinearLayout::kBordered (see runtime/backend.h).
#ifndef LORICA_MODEL_LAYERS_WEIGHT_STACK_H_
#define LORICA_MODEL_LAYERS_WEIGHT_STACK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

namespace lorica {

//   [W_1 B_1  0  0]   W_p [O_p, I]   B_p [O_p, R_p]   A [S, I]
//   [W_2  0  B_2 0]
//   [ A           ]   S = R_1 + R_2 and the spare ranks that make it a multiple
//   [ 0           ]   of kRankUnit
//
// of parts that share an input: q, k and v; gate and up; or one alone. S may be
// zero.
class WeightStack {
 public:
  // The weights are to be written; the rest is zero. `ranks` are those of all
  // parts.
  WeightStack(Device* device, DType dtype, absl::Span<const int64_t> outputs,
              int64_t inputs, int64_t ranks);

  size_t parts() const { return rows_.size(); }
  int64_t ranks() const { return ranks_; }    // Without the spare ones.
  int64_t border() const { return border_; }  // S
  Tensor weight(size_t part) const;           // [O_p, I]
  // The part's rows of B: those columns of its S.
  Tensor b(size_t part, Range ranks) const;
  Tensor a() const;  // [S, I]

 private:
  Tensor whole_;             // [O + S, I], B in the room beside it.
  std::vector<Range> rows_;  // Of each part.
  int64_t ranks_;
  int64_t border_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_WEIGHT_STACK_H_
