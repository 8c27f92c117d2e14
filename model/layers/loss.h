// The output head and its cross-entropy, over a split vocabulary and without
// the logits.
#ifndef LORICA_MODEL_LAYERS_LOSS_H_
#define LORICA_MODEL_LAYERS_LOSS_H_

#include <vector>

#include "model/layers/attention.h"
#include "model/plans.h"
#include "parallel/communicator.h"
#include "runtime/ops.h"

namespace lorica {

// h = norm(x);  loss_i = log sum exp(W h_i) - (W h_i)[target_i]
//
// Rows are taken in chunks, and a chunk's input gradient is formed while its
// exponentials are at hand: the head is frozen, so nothing else is due. The
// two collectives here (maximum and sum over the vocabulary) are not
// transitions between layouts: a softmax over a split dimension is neither a
// slice nor a sum.
class LossHead {
 public:
  // `norm` [H] F32; `head`: this rank's rows. `group` must outlive the layer.
  LossHead(Tensor norm, float norm_epsilon, ops::HeadSlice head,
           const LinearPlan& plan, Communicator* group);

  struct Result {
    std::vector<double> losses;  // Per row; 0 where its target is negative.
    Tensor dstream;              // [C, H], scale times the gradient of the sum.
  };

  // The losses alone.
  std::vector<double> Losses(const Stream& in, const Tensor& targets) const;
  Result LossesAndGrad(const Stream& in, const Tensor& targets,
                       float scale) const;
  // [C, V] F32 logits of the whole vocabulary on every rank; a few rows.
  Tensor Logits(const Stream& in) const;

 private:
  struct Chunk {
    ops::LogitStatsResult logits;
    Tensor stats;  // Of the whole vocabulary.
  };
  Chunk Stats(const Tensor& h, const Tensor& targets, ops::KeepExps keep) const;
  void AddLosses(const Chunk& chunk, const Tensor& targets,
                 std::vector<double>* losses) const;

  Tensor norm_;
  float norm_epsilon_;
  ops::HeadSlice head_;
  LinearPlan plan_;
  Communicator* group_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_LOSS_H_
