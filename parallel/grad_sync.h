// The sum of a step's gradients over micro-batches and ranks.
#ifndef LORICA_PARALLEL_GRAD_SYNC_H_
#define LORICA_PARALLEL_GRAD_SYNC_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "parallel/mesh.h"
#include "parallel/shard_spec.h"
#include "parallel/tree_sum.h"
#include "runtime/tensor.h"

namespace lorica {

// Where this rank's slice of a trained parameter lies in the flat arrays.
struct FlatSlice {
  ShardSpec shard;  // Over the tensor group.
  Range range;
};

// Sums flat F32 gradients [elements], this rank's slices of all trained
// parameters. A step is
//
//   for each micro-batch: backward adds into `flat`; AddMicroBatch(&flat)
//   Reduce(&flat)
//
// Micro-batches are added in the tree of tree_sum.h, so data rank d must hold
// those from d m on, m of them, in order. Then the data group sums the whole
// array, and the tensor group the slices of which it holds terms: replicated
// ones over all its ranks, shared ones (key/value heads under more ranks than
// heads) over those that share them. Data before tensor, so that the tree over
// micro-batches is whole before tensor ranks round into it: no bit then depends
// on the number of data ranks. Elements between slices must be finite.
//
// That is all an adapter costs in a step, whatever the accumulation: one
// all-reduce over the data group, and one for each set of tensor ranks that
// share slices. The transport cuts them in blocks. A device whose queue runs
// beside its collectives could start the last layers' slices earlier; on the
// CPU both need the same cores and there is nothing to win.
class GradSync {
 public:
  // All ranks of the mesh call it with the same parameters, in one order. The
  // mesh must outlive it.
  GradSync(absl::Span<const FlatSlice> slices, int64_t elements,
           const Mesh& mesh);

  // Takes the gradient of a micro-batch and leaves zeros.
  void AddMicroBatch(Tensor* flat);
  // Overwrites `flat` with the sum over this rank's micro-batches (at least
  // one) and those of the other ranks. All holders of a slice get the same
  // bits.
  void Reduce(Tensor* flat);
  // Sum of squares of the whole reduced gradient, each element counted once;
  // the same on every rank.
  double SquaredNorm(const Tensor& flat) const;
  // Fatal unless all ranks that hold an element of `flat` [elements], gradients
  // or what is computed from them, hold the same bits: the data group's ranks
  // everything, the tensor group's what they share.
  void VerifyReplicas(absl::string_view what, const Tensor& flat) const;

 private:
  // Slices that the same tensor ranks hold terms of.
  struct Shared {
    Communicator* group;
    std::vector<Range> ranges;
  };

  static void SumShared(const Shared& shared, const Tensor& flat);

  int64_t elements_;
  Communicator* tensor_;
  Communicator* data_;
  std::vector<std::unique_ptr<Communicator>> subgroups_;
  std::vector<Shared> shared_;
  std::vector<Range> invariant_;  // Whole on every rank, gradient as well.
  std::vector<Range> counted_;    // Of which this rank is the first holder.
  TreeSum<Tensor> sum_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_GRAD_SYNC_H_
