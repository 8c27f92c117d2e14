#include "parallel/mesh.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/check.h"

namespace lorica {

absl::StatusOr<Mesh> Mesh::Create(const MeshConfig& config,
                                  std::unique_ptr<Communicator> world) {
  CHECK(world != nullptr);
  if (config.data < 1 || config.tensor < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "mesh.data = ", config.data, " and mesh.tensor = ", config.tensor,
        " must both be at least 1"));
  }
  const int64_t ranks = int64_t{config.data} * config.tensor;
  if (ranks != world->size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "mesh.data = ", config.data, " times mesh.tensor = ", config.tensor,
        " needs ", ranks, " ranks, but ", world->size(),
        world->size() == 1 ? " was" : " were",
        " started; start with mpirun -n ", ranks, " or change the mesh"));
  }
  const int rank = world->rank();
  Mesh mesh;
  mesh.tensor_ = world->Split(rank / config.tensor, rank);
  mesh.data_ = world->Split(rank % config.tensor, rank);
  mesh.world_ = std::move(world);
  return mesh;
}

}  // namespace lorica
