// The ranks of a run as a grid: data x tensor, tensor ranks neighbours.
#ifndef LORICA_PARALLEL_MESH_H_
#define LORICA_PARALLEL_MESH_H_

#include <memory>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace lorica {

struct MeshConfig {
  int data = 1;
  int tensor = 1;
  // Whether tensor ranks also split what lies between the linear layers, by
  // tokens (Megatron's sequence parallelism). Changes no group.
  bool tensor_sequence = false;
  friend bool operator==(const MeshConfig&, const MeshConfig&) = default;
};

// Owns the groups of this rank. Rank r of the world is tensor rank r % tensor
// of data replica r / tensor.
class Mesh {
 public:
  // Error: data x tensor differs from the world's size. Owns `world`. All
  // ranks call it, and all fail or none.
  static absl::StatusOr<Mesh> Create(const MeshConfig& config,
                                     std::unique_ptr<Communicator> world);

  Communicator& world() const { return *world_; }
  // The ranks that hold the other slices of this rank's data replica.
  Communicator& tensor() const { return *tensor_; }
  // The ranks that hold the same slice in the other data replicas.
  Communicator& data() const { return *data_; }

 private:
  Mesh() = default;

  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Communicator> tensor_;
  std::unique_ptr<Communicator> data_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_MESH_H_
