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

TEST(MeshTest, TensorGroupsStayOnAHostWhereTheyFit) {
  using Ranks = std::vector<int>;
  // Nothing to gain.
  EXPECT_EQ(OrderByHost({0, 0, 1, 1}, 2), (Ranks{0, 1, 2, 3}));
  EXPECT_EQ(OrderByHost({0, 0, 1, 1}, 4), (Ranks{0, 1, 2, 3}));
  EXPECT_EQ(OrderByHost({0, 1, 2}, 1), (Ranks{0, 1, 2}));
  // The middle host has room for a whole group.
  EXPECT_EQ(OrderByHost({0, 0, 1, 1, 1, 1, 2, 2}, 4),
            (Ranks{0, 1, 6, 7, 2, 3, 4, 5}));
  // Ranks dealt out to hosts in turn.
  EXPECT_EQ(OrderByHost({5, 3, 5, 3}, 2), (Ranks{0, 2, 1, 3}));
}

TEST(MeshTest, RanksAreRenumberedByHost) {
  RunRanks(8, [](std::unique_ptr<Communicator> world) {
    const int rank = world->rank();
    const int host = rank < 2 ? 7 : rank < 6 ? 8 : 9;
    const absl::StatusOr<Mesh> mesh =
        Mesh::Create({.data = 2, .tensor = 4}, std::move(world), host);
    ASSERT_TRUE(mesh.ok()) << mesh.status();
    EXPECT_EQ(mesh->spread_tensor_groups(), 1);
    EXPECT_EQ(mesh->data().rank(), host == 8 ? 1 : 0);
    EXPECT_EQ(mesh->tensor().rank(), host == 8   ? rank - 2
                                     : host == 7 ? rank
                                                 : rank - 4);
    // The launcher's numbers are the ones that a user knows.
    EXPECT_EQ(mesh->world().world_rank(mesh->world().rank()), rank);
    EXPECT_EQ(mesh->tensor().world_rank(mesh->tensor().rank()), rank);
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
