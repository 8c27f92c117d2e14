// Every CUDA kernel on the simulator against its scalar reference, on every
// case, with the same bits whichever thread runs first and wherever rows of the
// operands begin. Built with the
// sanitizers of the build, or none, and with kernels whose every access is
// checked for races.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/allocator.h"
#include "runtime/device.h"
#include "tests/support/cuda_sim/sim_device.h"
#include "tests/support/cuda_sim/simulator.h"
#include "tests/support/op_cases.h"
#include "tests/support/operands.h"

namespace lorica {
namespace {

using cuda_sim::Order;

using Values = std::vector<std::vector<float>>;

Values ValuesOf(const PreparedOp& op) {
  Values values;
  for (const OpResult& result : op.results) {
    values.push_back(result.value.ToFloats());
  }
  return values;
}

// Runs the case on the simulator and returns its results.
Values ExpectMatch(const OpCase& op_case,
                   const std::vector<OpExpectation>& expected) {
  const std::unique_ptr<Device> device = OpenSimDevice();
  const PreparedOp op = op_case.prepare(device.get());
  op.run();
  EXPECT_THAT(cuda_sim::TakeReports(), ::testing::IsEmpty());
  EXPECT_EQ(op.results.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(op.results[i].name, expected[i].name);
    EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
  }
  return ValuesOf(op);
}

// The name of the case without the word for how its operands lie.
std::string WithoutLayout(std::string name) {
  for (const Layout2d layout : kEveryLayout) {
    const std::string word = WordOf(layout);
    const size_t at = word.empty() ? std::string::npos : name.find(word);
    if (at != std::string::npos) name.erase(at, word.size());
  }
  return name;
}

// Whether one kernel has an entry's cases however their operands lie.
bool IsOfOneKernel(const std::string& entry) { return entry != "matmul"; }

// The parameter is an entry of the table.
class KernelsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(KernelsTest, MatchTheirReferenceInEveryOrderWithEqualBits) {
  std::map<std::string, Values> of_layouts;
  for (const OpCase& op_case : OpCases()) {
    if (op_case.entry != GetParam()) continue;
    SCOPED_TRACE(op_case.name);
    const std::vector<OpExpectation> expected = op_case.expect();
    cuda_sim::SetOrder(Order::kRandom, 1);
    const Values values = ExpectMatch(op_case, expected);
    if (IsOfOneKernel(op_case.entry)) {
      const auto [same, is_first] =
          of_layouts.emplace(WithoutLayout(op_case.name), values);
      EXPECT_EQ(values, same->second);
    }
    // What is not ordered shows in any one order.
    if (cuda_sim::ChecksAccesses()) continue;
    for (const Order order : {Order::kForward, Order::kReverse}) {
      SCOPED_TRACE(order == Order::kForward ? "forward" : "reverse");
      cuda_sim::SetOrder(order, 1);
      EXPECT_EQ(ExpectMatch(op_case, expected), values);
    }
  }
}

// Where nothing is summed there is one right rounding.
TEST(ExactKernelsTest, WhatMovesOrRoundsOnceHasTheBitsOfTheCpu) {
  const std::set<std::string> exact = {
      "add",         "convert",        "dropout",     "fill",
      "gather_rows", "scatter_pieces", "scatter_rows"};
  const std::unique_ptr<Device> sim = OpenSimDevice();
  const std::unique_ptr<Device> cpu =
      OpenCpuDevice({.allocation = Allocation::kDirect});
  cuda_sim::SetOrder(Order::kForward, 1);
  for (const OpCase& op_case : OpCases()) {
    if (exact.count(op_case.entry) == 0) continue;
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const PreparedOp on_sim = op_case.prepare(sim.get());
    const PreparedOp on_cpu = op_case.prepare(cpu.get());
    on_sim.run();
    on_cpu.run();
    EXPECT_EQ(ValuesOf(on_sim), ValuesOf(on_cpu));
  }
}

// Other entries are compositions of products.
bool IsKernel(const std::string& entry) {
  return entry != "lora_forward" && entry != "lora_backward";
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
