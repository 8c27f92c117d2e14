// Every CUDA kernel on the simulator against its scalar reference, on every
// case, with the same bits whichever thread runs first and wherever rows of the
// operands begin, and nothing written between rows. Built with the sanitizers
// of the build, or none, and with kernels whose every access is checked for
// races.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/allocator.h"
#include "runtime/cuda/attention/padded_stats.h"
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

// Whether all that lies between the rows of a result is NaN, as it was.
bool IsIntactBetweenRows(Device* device, const Tensor& result) {
  const View v = result.view();
  const int64_t gap = v.row_stride - v.cols;
  for (int64_t r = 0; gap > 0 && r + 1 < v.rows; ++r) {
    const auto first = static_cast<size_t>(r * v.row_stride + v.cols);
    const Tensor between =
        Tensor::Borrow(device, {gap}, v.dtype,
                       v.As<char>() + first * SizeOf(v.dtype), nullptr);
    for (const float value : between.ToFloats()) {
      if (!std::isnan(value)) return false;
    }
  }
  return true;
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
    EXPECT_TRUE(IsIntactBetweenRows(device.get(), op.results[i].value));
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

// Records whose rows begin anywhere, the second before the first, and which are
// padded to no multiple of 16 bytes. Row 18 is none's.
class PaddedStatsTest : public ::testing::Test {
 protected:
  static constexpr int64_t kHeads = 2;
  static constexpr int64_t kLongest = 14;
  const std::vector<int32_t> starts_ = {7, 0, 11};
  const std::vector<int32_t> lengths_ = {4, 7, 7};

  HostMatrix Lse() const { return RandomMatrix("lse", kHeads, 19, kF32); }
  // Of records and heads.
  HostMatrix Padded(double rest) const {
    const HostMatrix lse = Lse();
    HostMatrix padded(static_cast<int64_t>(starts_.size()) * kHeads, kLongest);
    for (int64_t r = 0; r < padded.rows; ++r) {
      const auto record = static_cast<size_t>(r / kHeads);
      for (int64_t t = 0; t < kLongest; ++t) {
        padded(r, t) =
            t < lengths_[record] ? lse(r % kHeads, starts_[record] + t) : rest;
      }
    }
    return padded;
  }
  cuda::PaddedStats On(const Tensor& data) const {
    return {.data = data.view().As<float>(),
            .starts = on_starts_.view().As<const int32_t>(),
            .lengths = on_lengths_.view().As<const int32_t>(),
            .records = static_cast<int64_t>(starts_.size()),
            .heads = kHeads,
            .longest = kLongest};
  }

  static constexpr DType kF32 = DType::kF32;
  const std::unique_ptr<Device> device_ = OpenSimDevice();
  const Tensor on_starts_ = UploadInts(device_.get(), starts_);
  const Tensor on_lengths_ = UploadInts(device_.get(), lengths_);
};

TEST_F(PaddedStatsTest, ComeOutOfRecordsAsTheyWere) {
  const Tensor padded = Upload(device_.get(), Padded(1e30), kF32);
  for (const Layout2d layout : kEveryLayout) {
    const Tensor lse = Room(device_.get(), kHeads, Lse().cols, kF32, layout);
    cuda::Unpad(device_->queue(), On(padded), lse.view());
    std::vector<float> got = lse.ToFloats();
    for (const size_t untouched : {18, 37}) {
      EXPECT_TRUE(std::isnan(got[untouched]));
      got[untouched] = static_cast<float>(Lse().values[untouched]);
    }
    EXPECT_THAT(got, ::testing::Pointwise(::testing::Eq(), Lse().values));
    EXPECT_TRUE(IsIntactBetweenRows(device_.get(), lse));
  }
  EXPECT_THAT(cuda_sim::TakeReports(), ::testing::IsEmpty());
}

TEST_F(PaddedStatsTest, EndInInfinities) {
  const HostMatrix expected = Padded(std::numeric_limits<double>::infinity());
  for (const Layout2d layout : kEveryLayout) {
    const Tensor lse = Upload(device_.get(), Lse(), kF32, layout);
    const Tensor padded =
        Room(device_.get(), expected.rows + 1, kLongest, kF32);
    cuda::Pad(device_->queue(), lse.view(), On(padded));
    std::vector<float> got = padded.ToFloats();
    const auto end = got.begin() + static_cast<int64_t>(expected.values.size());
    EXPECT_TRUE(std::isnan(*end));
    got.erase(end, got.end());
    EXPECT_THAT(got, ::testing::Pointwise(::testing::Eq(), expected.values));
  }
  EXPECT_THAT(cuda_sim::TakeReports(), ::testing::IsEmpty());
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
