// The output head and its cross-entropy, over a split vocabulary and without
// the logits.
#ifndef LORICA_MODEL_LAYERS_LOSS_H_
#define LORICA_MODEL_LAYERS_LOSS_H_

#include <cstdint>
#include <vector>

#include "model/layers/attention.h"
#include "model/layers/norm.h"
#include "model/plans.h"
#include "parallel/communicator.h"
#include "runtime/ops.h"

namespace lorica {

// The losses of a pass's rows while they are on the device: the host goes on
// and reads them when it has nothing else to give.
class RowLosses {
 public:
  // `targets` of the rows [C]; takes memory for as many statistics.
  RowLosses(Device* device, std::vector<int32_t> targets);

  // Statistics [3, rows], as ops::LogitStats', of some rows over the whole
  // vocabulary: to be assigned.
  Tensor StatsOf(const Range& rows) { return stats_.Cols(rows); }
  // All rows of `other`, which has as many.
  void CopyFrom(const RowLosses& other) {
    ops::ConvertInto(other.stats_, 1.0f, &stats_);
  }
  // By row; 0 where its target is negative. Once all rows have statistics;
  // waits for the device.
  std::vector<double> Read() const;

 private:
  std::vector<int32_t> targets_;
  Tensor stats_;  // [3, C] F32
};

// h = norm(x);  loss_i = log sum exp(W h_i) - (W h_i)[target_i]
//
// Rows are taken in chunks, and a chunk's input gradient is formed while its
// exponentials are at hand: the head is frozen, so nothing else is due. The
// collective here, a gather of statistics that each rank then merges, is not a
// transition between layouts: a softmax over a split dimension is neither a
// slice nor a sum.
class LossHead {
 public:
  // `head`: this rank's rows. `group` must outlive the layer.
  LossHead(Norm norm, ops::HeadSlice head, const LinearPlan& plan,
           Communicator* group);

  // Fills in `losses`, which are of the same targets [C] I32.
  void Losses(const Stream& in, const Tensor& targets, RowLosses* losses) const;
  // The same; returns scale times the gradient of their sum, [C, H], with
  // `room` beside it. `times` [1] F32 multiplies the scale, where present.
  Tensor LossesAndGrad(const Stream& in, const Tensor& targets, float scale,
                       const Tensor& times, int64_t room,
                       RowLosses* losses) const;
  // [C, V] F32 logits of the whole vocabulary on every rank; a few rows.
  Tensor Logits(const Stream& in) const;

 private:
  // Assigns `stats`, those of the whole vocabulary.
  ops::KeptExps Stats(const Tensor& h, const Tensor& targets,
                      ops::KeepExps keep, Tensor* stats) const;

  Norm norm_;
  ops::HeadSlice head_;
  LinearPlan plan_;
  Communicator* group_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_LOSS_H_
