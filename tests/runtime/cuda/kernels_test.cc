// Every CUDA kernel on the simulator against its scalar reference, on every
// case, whichever thread runs first. Built twice: with the sanitizers of the
// build, and with kernels whose every access is checked for races.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/allocator.h"
#include "runtime/device.h"
#include "tests/support/cuda_sim/sim_device.h"
#include "tests/support/cuda_sim/simulator.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

using cuda_sim::Order;

struct Turns {
  const char* word;
  Order order;
};
constexpr Turns kTurns[] = {{"Random", Order::kRandom},
                            {"Forward", Order::kForward},
                            {"Reverse", Order::kReverse}};

void ExpectMatch(const OpCase& op_case,
                 const std::vector<OpExpectation>& expected) {
  const std::unique_ptr<Device> device = OpenSimDevice();
  const PreparedOp op = op_case.prepare(device.get());
  op.run();
  EXPECT_THAT(cuda_sim::TakeReports(), ::testing::IsEmpty());
  ASSERT_EQ(op.results.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(op.results[i].name, expected[i].name);
    EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
  }
}

// The parameter is an entry of the table.
class KernelsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(KernelsTest, MatchTheirReferenceInEveryOrder) {
  for (const OpCase& op_case : OpCases()) {
    if (op_case.entry != GetParam()) continue;
    SCOPED_TRACE(op_case.name);
    const std::vector<OpExpectation> expected = op_case.expect();
    for (const Turns& turns : kTurns) {
      SCOPED_TRACE(turns.word);
      cuda_sim::SetOrder(turns.order, 1);
      ExpectMatch(op_case, expected);
      // What is not ordered shows in any one of them.
      if (cuda_sim::ChecksAccesses()) break;
    }
  }
}

// Other entries are compositions of products.
bool IsKernel(const std::string& entry) {
  return entry != "matmul" && entry != "lora_forward" &&
         entry != "lora_backward";
}

std::set<std::string> Kernels() {
  std::set<std::string> entries;
  for (const OpCase& op_case : OpCases()) {
    if (IsKernel(op_case.entry)) entries.insert(op_case.entry);
  }
  return entries;
}

INSTANTIATE_TEST_SUITE_P(Entries, KernelsTest, ::testing::ValuesIn(Kernels()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace lorica
