// The sum of a step's gradients over micro-batches and ranks.
#ifndef LORICA_PARALLEL_GRAD_SYNC_H_
#define LORICA_PARALLEL_GRAD_SYNC_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "parallel/mesh.h"
#include "parallel/recorded_work.h"
#include "parallel/shard_spec.h"
#include "parallel/tree_sum.h"
#include "runtime/ops.h"
#include "runtime/tensor.h"

namespace lorica {

// Where this rank's slice of a trained parameter lies in the flat arrays.
struct FlatSlice {
  ShardSpec shard;  // Over the tensor group.
  Range range;
};

// Ranges of the flat arrays whose gradients are complete at the same time.
using Bucket = std::vector<Range>;

// Sums flat F32 gradients [elements], this rank's slices of all trained
// parameters. A step is
//
//   for each micro-batch: backward adds into the gradients; AddMicroBatch()
//   Reduce()
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
// share slices. The transport cuts them in blocks.
//
// With several buckets there is a sum over the data group for each, and Ready
// starts it while backward still computes the others; the tensor group, which
// backward itself keeps busy, sums at the end as before. Sums are elementwise,
// so buckets change no bit either, unless mesh.deterministic is off and a
// library chooses its order by an array's size. It pays where the device
// computes beside its collectives; where both need the same cores, one bucket
// is best (docs/parallelism.md has the figures).
class GradSync {
 public:
  // `grads` [elements] F32, dense, and `micro_batches`, at least one, those of
  // a step on this rank. All ranks of the mesh call it with the same
  // parameters, in one order. The mesh must outlive it. Every slice lies in a
  // range of one bucket; buckets in the order in which they are ready. None:
  // everything is one bucket.
  GradSync(absl::Span<const FlatSlice> slices, Tensor grads,
           int64_t micro_batches, const Mesh& mesh,
           std::vector<Bucket> buckets = {});

  // To be called before the first step: its work on the device is recorded, by
  // a recorder of the tensor group's. Sums over the data group are not, nor,
  // where some tensor ranks share slices by groups of their own, whatever
  // follows those.
  void Record(const WorkRecorder& by);

  int num_buckets() const { return static_cast<int>(parts_.size()); }

  // Takes the gradient of a micro-batch, unless its buckets were Ready, and
  // leaves zeros if more follow.
  void AddMicroBatch();
  // In a step's last micro-batch, once nothing more is added to a bucket's
  // gradient: starts its sum. Until Reduce nobody touches it. Buckets in their
  // order, all of them or none.
  void Ready(int bucket);
  // After the last: leaves the sum over this rank's micro-batches and those of
  // the other ranks. All holders of a slice get the same bits. The next step
  // begins, for which the caller brings zeros.
  void Reduce();
  // Sum of squares of the whole gradient that Reduce left, each element counted
  // once; the same on every rank. Waits for the device.
  double SquaredNorm() const;
  // Internal, with `what` and the ranks that differ, unless all ranks that hold
  // an element of `flat` [elements], gradients or what is computed from them,
  // hold the same bits: the data group's ranks everything, the tensor group's
  // what they share. A rank that shares no such element with them is not told.
  absl::Status VerifyReplicas(absl::string_view what, const Tensor& flat) const;

 private:
  // Ranges of the gradients as one array.
  class Packed {
   public:
    // In `array`, of as many elements as there are; where that is absent in
    // memory of its own, or where they lie if they are one range.
    Packed(const std::vector<Range>& ranges, const Tensor& grads, Tensor array);

    // From the gradients into the array, and back.
    void Collect(const Tensor& grads) const;
    void Spread() const;
    bool in_place() const { return into_.pieces.empty(); }
    Tensor* array() { return &array_; }

   private:
    Tensor array_;
    ops::PieceTable into_;  // No pieces: they lie where they belong.
    ops::PieceTable back_;
  };
  // Slices that the same tensor ranks hold terms of.
  struct Shared {
    Communicator* group;
    std::vector<Range> ranges;
    Packed terms;
  };
  struct Part {
    Packed sum;
    std::vector<Tensor> partial;  // Sums of micro-batches, by TreeStep::level.
    bool started = false;         // The sum over the data group.
    RecordedWork gather;
  };

  std::vector<Shared> SharedOf(absl::Span<const FlatSlice> slices);
  void MakeParts(absl::Span<const Bucket> buckets);
  // Brings a bucket's gradient and the partial sums that it joins together.
  void Gather(const TreeStep& step, Part* part);
  // Whether there is anything to do for that.
  static bool Moves(const TreeStep& step, const Part& part);
  // What AddMicroBatch does with the micro-batch of that step.
  void Add(const TreeStep& step);
  // What Reduce does after the sums over the data group.
  void Finish();
  void Start(Part* part);
  void SumShared(Shared* shared);

  Tensor grads_;
  int64_t micro_batches_;
  int64_t added_ = 0;  // Of them, in the present step.
  Communicator* tensor_;
  Communicator* data_;
  std::vector<std::unique_ptr<Communicator>> subgroups_;
  std::vector<Shared> shared_;      // In the whole array.
  std::vector<Range> invariant_;    // Whole on every rank, gradient as well.
  std::vector<Range> counted_;      // Of which this rank is the first holder.
  Tensor norms_;                    // Sums of the squares of each.
  std::vector<Part> parts_;         // One a bucket.
  std::vector<RecordedWork> adds_;  // By TreeStep::level, from -1 on.
  RecordedWork finish_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_GRAD_SYNC_H_
