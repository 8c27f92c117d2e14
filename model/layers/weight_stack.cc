#include "model/layers/weight_stack.h"

#include "runtime/ops.h"

namespace lorica {
namespace {

int64_t WithSpare(int64_t ranks) {
  return (ranks + kRankUnit - 1) / kRankUnit * kRankUnit;
}

}  // namespace

WeightStack::WeightStack(Device* device, DType dtype,
                         absl::Span<const int64_t> outputs, int64_t inputs,
                         int64_t ranks)
    : ranks_(ranks), border_(WithSpare(ranks)) {
  int64_t rows = 0;
  for (const int64_t n : outputs) {
    rows_.push_back({rows, rows + n});
    rows += n;
  }
  whole_ = Tensor::WithRoom(device, {rows + border_, inputs}, dtype, border_);
  if (ranks == 0) return;
  Tensor border = whole_.Spare(border_);
  ops::Fill(0.0f, &border);
  Tensor factors = a();
  ops::Fill(0.0f, &factors);
}

Tensor WeightStack::weight(size_t part) const {
  return whole_.Rows(rows_[part]);
}

Tensor WeightStack::b(size_t part, Range ranks) const {
  return whole_.Rows(rows_[part]).Spare(border_).Cols(ranks);
}

Tensor WeightStack::a() const {
  const int64_t first = rows_.back().end;
  return whole_.Rows({first, first + border_});
}

}  // namespace lorica
