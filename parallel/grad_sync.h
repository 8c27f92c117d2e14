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

// Ranges of the flat arrays whose gradients are complete at the same time.
using Bucket = std::vector<Range>;

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
  // All ranks of the mesh call it with the same parameters, in one order. The
  // mesh must outlive it. Every slice lies in a range of one bucket; buckets in
  // the order in which they are ready. None: everything is one bucket.
  GradSync(absl::Span<const FlatSlice> slices, int64_t elements,
           const Mesh& mesh, std::vector<Bucket> buckets = {});

  // Before the first step, for flat arrays on `device`, on all ranks: takes
  // memory from which the library of collectives sums without copies of its
  // own, where it has such.
  void TakeSumMemory(Device* device);

  int num_buckets() const { return static_cast<int>(buckets_.size()); }

  // Takes the gradient of a micro-batch and leaves zeros, but for buckets that
  // were Ready.
  void AddMicroBatch(Tensor* flat);
  // In a step's last micro-batch, once nothing more is added to a bucket's
  // gradient: takes it and starts its sum. Buckets in their order. Reduce must
  // follow.
  void Ready(int bucket, const Tensor& flat);
  // Overwrites `flat` with the sum over this rank's micro-batches (at least
  // one) and those of the other ranks. All holders of a slice get the same
  // bits. The next step begins.
  void Reduce(Tensor* flat);
  // Sum of squares of the whole reduced gradient, each element counted once;
  // the same on every rank.
  double SquaredNorm(const Tensor& flat) const;
  // Internal, with `what` and the ranks that differ, unless all ranks that hold
  // an element of `flat` [elements], gradients or what is computed from them,
  // hold the same bits: the data group's ranks everything, the tensor group's
  // what they share. A rank that shares no such element with them is not told.
  absl::Status VerifyReplicas(absl::string_view what, const Tensor& flat) const;

 private:
  // Slices that the same tensor ranks hold terms of.
  struct Shared {
    Communicator* group;
    std::vector<Range> ranges;
  };
  // A bucket's ranges one after another are its packed array.
  struct Part {
    Bucket ranges;
    int64_t elements = 0;
    int64_t place = 0;      // In memory for sums.
    TreeSum<Tensor> terms;  // Of this rank's micro-batches.
    Tensor sum;             // Over the data group, once that was started.
  };

  std::vector<Shared> SharedOf(absl::Span<const FlatSlice> slices);
  void Start(Part* part);
  static void SumShared(const Shared& shared, Tensor* flat);

  int64_t elements_;
  Communicator* tensor_;
  Communicator* data_;
  std::vector<std::unique_ptr<Communicator>> subgroups_;
  std::vector<Shared> shared_;    // In the whole array.
  std::vector<Range> invariant_;  // Whole on every rank, gradient as well.
  std::vector<Range> counted_;    // Of which this rank is the first holder.
  std::vector<Part> buckets_;
  Tensor sum_memory_;  // Of all buckets; may be absent.
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_GRAD_SYNC_H_
