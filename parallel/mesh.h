// The ranks of a run as a grid: data x tensor, tensor ranks neighbours.
#ifndef LORICA_PARALLEL_MESH_H_
#define LORICA_PARALLEL_MESH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/communicator.h"

namespace lorica {

struct MeshConfig {
  int data = 1;
  int tensor = 1;
  // Whether tensor ranks also split what lies between the linear layers, by
  // tokens (Megatron's sequence parallelism). Changes no group.
  bool tensor_sequence = false;
  // How long a collective may wait for its slowest rank before the run ends:
  // see watchdog.h.
  double timeout_seconds = 600;
  // Whether sums over data ranks on devices are taken in the tree of
  // tree_sum.h, as they always are on the host.
  bool deterministic = true;
  // 0: the adapter's gradients are summed once backward is done. Otherwise in
  // buckets of at least so many bytes, each as soon as it is complete: see
  // grad_sync.h.
  int64_t gradient_bucket_bytes = 0;
  friend bool operator==(const MeshConfig&, const MeshConfig&) = default;
};

// An order of ranks in which as many runs of `tensor` as possible lie on one
// host: entry i is the rank that becomes rank i. `hosts` by rank, in any
// numbering. Whole runs are cut from every host, and what is left over makes
// the others; rank 0 stays rank 0, and where nothing is gained all ranks stay.
std::vector<int> OrderByHost(absl::Span<const int> hosts, int tensor);

// Owns the groups of this rank. Rank r of the world is tensor rank r % tensor
// of data replica r / tensor.
class Mesh {
 public:
  // `host` numbers this rank's host; ranks are renumbered by OrderByHost.
  // Error: data x tensor differs from the world's size. Owns `world`. All
  // ranks call it, and all fail or none.
  static absl::StatusOr<Mesh> Create(const MeshConfig& config,
                                     std::unique_ptr<Communicator> world,
                                     int host = 0);

  Communicator& world() const { return *world_; }
  // The ranks that hold the other slices of this rank's data replica.
  Communicator& tensor() const { return *tensor_; }
  // The ranks that hold the same slice in the other data replicas.
  Communicator& data() const { return *data_; }
  // How many of the tensor groups have ranks on several hosts, so that every
  // layer's activations cross the network.
  int spread_tensor_groups() const { return spread_tensor_groups_; }

 private:
  Mesh() = default;

  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Communicator> tensor_;
  std::unique_ptr<Communicator> data_;
  int spread_tensor_groups_ = 0;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_MESH_H_
