// Run under mpirun: every rank runs all tests, in step.
#include "parallel/mpi_communicator.h"

#include <gtest/gtest.h>

#include <iostream>
#include <string>
#include <tuple>

#include "runtime/check.h"
#include "tests/parallel/communicator_suite.h"

namespace lorica {
namespace {

const MpiEnvironment* environment = nullptr;

using Param = std::tuple<CommunicatorCase, HostPath>;

class MpiCommunicatorSuite : public testing::TestWithParam<Param> {};

TEST_P(MpiCommunicatorSuite, Holds) {
  const auto& [test_case, path] = GetParam();
  test_case.check(*environment->World(path));
}

std::string Name(const testing::TestParamInfo<Param>& param) {
  return std::string(std::get<0>(param.param).name) +
         (std::get<1>(param.param) == HostPath::kMessages ? "ByMessages"
                                                          : "ByMemory");
}

INSTANTIATE_TEST_SUITE_P(
    Processes, MpiCommunicatorSuite,
    testing::Combine(testing::ValuesIn(CommunicatorCases()),
                     testing::Values(HostPath::kSharedMemory,
                                     HostPath::kMessages)),
    Name);

TEST(MpiCommunicatorTest, RanksOfOneHostKnowTheirPlace) {
  const std::unique_ptr<Communicator> world = environment->World();
  const Placement& placement = environment->placement();
  EXPECT_FALSE(placement.host.empty());
  EXPECT_EQ(placement.hosts, 1);
  EXPECT_EQ(placement.local_rank, world->rank());
  EXPECT_EQ(placement.local_ranks, world->size());
}

// What the other ranks print: only what went wrong, with their rank.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::cerr << "rank " << rank_ << ": " << result.file_name() << ":"
              << result.line_number() << ": " << result.message() << "\n";
  }

 private:
  int rank_;
};

void RunAs(const MpiEnvironment* started) {
  environment = started;
  const int rank = environment->placement().local_rank;
  if (rank == 0) return;
  testing::TestEventListeners& listeners =
      testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new FailurePrinter(rank));
}

}  // namespace
}  // namespace lorica

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  auto started = lorica::MpiEnvironment::Start();
  CHECK(started.ok()) << started.status();
  lorica::RunAs(started->get());
  return RUN_ALL_TESTS();
}
