// Run under mpirun: every rank runs all tests, in step.
#include "parallel/mpi_communicator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/check.h"
#include "tests/parallel/communicator_suite.h"
#include "tests/support/run_ranks.h"

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

// Needs ten GB of memory and minutes on a busy machine, so it is run by hand:
//   LORICA_LONG_MESSAGES=1 mpirun -n 2 parallel_mpi_communicator_test
//     --gtest_filter=*TwoToThe31*
TEST(MpiCommunicatorTest, ArraysMayHaveMoreThanTwoToThe31Elements) {
  if (std::getenv("LORICA_LONG_MESSAGES") == nullptr) {
    GTEST_SKIP() << "takes ten GB; set LORICA_LONG_MESSAGES to run it";
  }
  // Element i of rank r is r + 1 + i % 61, whose sums are exact in BF16.
  constexpr int64_t kPeriod = 61;
  constexpr int64_t kElements = (int64_t{1} << 31) / kPeriod * kPeriod + 122;
  const auto period = [](int ranks, int rank_sum) {
    std::vector<BFloat16> values;
    for (int64_t i = 0; i < kPeriod; ++i) {
      values.emplace_back(static_cast<float>(ranks * (1 + i) + rank_sum));
    }
    return values;
  };
  const std::unique_ptr<Device> device = OpenTestDevice();
  for (const HostPath path : {HostPath::kSharedMemory, HostPath::kMessages}) {
    const std::unique_ptr<Communicator> world = environment->World(path);
    const int ranks = world->size();
    Tensor tensor = Tensor::Empty(device.get(), {kElements}, DType::kBF16);
    auto* data = static_cast<BFloat16*>(tensor.data());
    const std::vector<BFloat16> mine = period(1, world->rank());
    for (int64_t i = 0; i < kElements; i += kPeriod) {
      std::copy(mine.begin(), mine.end(), data + i);
    }
    world->AllReduceSum(&tensor, Purpose::kControl);
    const std::vector<BFloat16> sum = period(ranks, ranks * (ranks - 1) / 2);
    int64_t wrong = 0;
    for (int64_t i = 0; i < kElements; i += kPeriod) {
      wrong += std::memcmp(data + i, sum.data(), kPeriod * 2) != 0;
    }
    EXPECT_EQ(wrong, 0);
    // And one message of more than 2^31 bytes.
    tensor = {};
    if (path == HostPath::kSharedMemory) continue;
    std::string bytes(static_cast<size_t>(kElements), 'a');
    bytes.back() = static_cast<char>('b' + world->rank());
    const std::string first =
        world->BroadcastBytes(std::move(bytes), 0, Purpose::kControl);
    ASSERT_EQ(static_cast<int64_t>(first.size()), kElements);
    EXPECT_EQ(first.back(), 'b');
    EXPECT_EQ(first[first.size() / 2], 'a');
  }
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
