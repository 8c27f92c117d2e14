#include "parallel/agreement.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

TEST(AgreementTest, NobodyFailsAlone) {
  for (const int ranks : {3, 4, 5}) {
    RunRanks(ranks, [](std::unique_ptr<Communicator> world) {
      EXPECT_EQ(Agree(absl::OkStatus(), *world), absl::OkStatus());
      // The two last ranks fail, each in its own way.
      const int first_failing = world->size() - 2;
      const absl::Status mine =
          world->rank() < first_failing
              ? absl::OkStatus()
              : absl::NotFoundError(absl::StrCat("file ", world->rank()));
      EXPECT_EQ(Agree(mine, *world),
                absl::NotFoundError(absl::StrCat("rank ", first_failing,
                                                 ": file ", first_failing)));
    });
  }
}

TEST(AgreementTest, AFailureOfAllNamesNoRank) {
  RunRanks(3, [](std::unique_ptr<Communicator> world) {
    const absl::Status mine =
        absl::NotFoundError(absl::StrCat("file ", world->rank()));
    EXPECT_EQ(Agree(mine, *world), absl::NotFoundError("file 0"));
  });
}

TEST(AgreementTest, AResultIsGivenWhereAllHaveOne) {
  RunRanks(3, [](std::unique_ptr<Communicator> world) {
    absl::StatusOr<int> mine = world->rank();
    EXPECT_EQ(*AgreeOn(mine, *world), world->rank());
    if (world->rank() == 1) mine = absl::NotFoundError("file");
    EXPECT_EQ(AgreeOn(mine, *world).status(),
              absl::NotFoundError("rank 1: file"));
  });
}

TEST(AgreementTest, RanksAreNamedAsInTheWorld) {
  RunRanks(4, [](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Communicator> half =
        world->Split(world->rank() / 2, world->rank());
    const absl::Status mine =
        world->rank() == 3 ? absl::InternalError("no") : absl::OkStatus();
    EXPECT_EQ(Agree(mine, *half), world->rank() < 2
                                      ? absl::OkStatus()
                                      : absl::InternalError("rank 3: no"));
  });
}

TEST(AgreementTest, ALoneRankKeepsItsWords) {
  const absl::Status mine = absl::DataLossError("torn");
  EXPECT_EQ(Agree(mine, *LoneCommunicator()), mine);
}

}  // namespace
}  // namespace lorica
