#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

TEST(MeshTest, TensorRanksAreNeighbours) {
  RunRanks(6, [](std::unique_ptr<Communicator> world) {
    const absl::StatusOr<Mesh> mesh =
        Mesh::Create({.data = 2, .tensor = 3}, std::move(world));
    ASSERT_TRUE(mesh.ok()) << mesh.status();
    const int rank = mesh->world().rank();
    EXPECT_EQ(mesh->tensor().rank(), rank % 3);
    EXPECT_EQ(mesh->tensor().size(), 3);
    EXPECT_EQ(mesh->tensor().world_rank(0), rank / 3 * 3);
    EXPECT_EQ(mesh->data().rank(), rank / 3);
    EXPECT_EQ(mesh->data().size(), 2);
    EXPECT_EQ(mesh->data().world_rank(0), rank % 3);
  });
}

TEST(MeshTest, RefusesAMeshThatIsNotTheWorld) {
  EXPECT_EQ(Mesh::Create({.data = 2, .tensor = 3}, LoneCommunicator()).status(),
            absl::InvalidArgumentError(
                "mesh.data = 2 times mesh.tensor = 3 needs 6 ranks, but 1 was "
                "started; start with mpirun -n 6 or change the mesh"));
  EXPECT_EQ(Mesh::Create({.data = 0, .tensor = 1}, LoneCommunicator())
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lorica
