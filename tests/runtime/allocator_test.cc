#include "runtime/allocator.h"

#include <cstddef>
#include <memory>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/dry_run.h"
#include "runtime/ops.h"
#include "runtime/tensor.h"

namespace lorica {
namespace {

TEST(AllocatorTest, EqualRequestsInEqualOrderGetEqualAddresses) {
  const auto device = OpenCpuDevice({});
  const auto step = [&] {
    std::vector<void*> addresses;
    std::vector<Tensor> live;
    for (const int64_t rows : {100, 7, 3000, 1, 64}) {
      live.push_back(Tensor::Empty(device.get(), {rows, 33}, DType::kF32));
      addresses.push_back(live.back().data());
      if (live.size() == 3) live.erase(live.begin());
    }
    return addresses;
  };
  step();
  EXPECT_EQ(step(), step());
}

TEST(AllocatorTest, BlocksInUseDoNotOverlap) {
  const auto device = OpenCpuDevice({});
  std::vector<Tensor> live;
  std::vector<Tensor> dropped;
  for (int64_t i = 1; i < 200; ++i) {
    Tensor t = Tensor::Empty(device.get(), {i * 37 % 91 + 1, i}, DType::kF32);
    (i % 3 == 0 ? dropped : live).push_back(t);
    if (i % 20 == 0) dropped.clear();
  }
  std::set<std::pair<char*, char*>> spans;
  for (const Tensor& t : live) {
    char* begin = static_cast<char*>(t.data());
    spans.insert({begin, begin + t.elements() * 4});
  }
  const char* end = nullptr;
  for (const auto& [first, last] : spans) {
    EXPECT_LE(end, first);
    end = last;
  }
}

// Other work comes in between, and more of the memory is free.
TEST(AllocatorTest, APlanServesTheSameWorkFromTheSameAddresses) {
  const auto device = OpenCpuDevice({});
  Allocator memory(&device->backend(), device->queue(), Allocation::kPool);
  const auto work = [&](Allocator::Plan* plan, int64_t rows) {
    const Device::Scope scope(device.get(), &memory);
    memory.BeginPlan(plan);
    std::vector<void*> addresses;
    {
      std::vector<Tensor> live;
      for (const int64_t cols : {300, 5, 70, 900}) {
        live.push_back(Tensor::Empty(device.get(), {rows, cols}, DType::kF32));
        addresses.push_back(live.back().data());
        if (live.size() == 2) live.erase(live.begin());
      }
    }
    memory.EndPlan();
    return addresses;
  };
  Allocator::Plan small;
  Allocator::Plan large;
  const std::vector<void*> first = work(&small, 8);
  work(&large, 9000);  // Beyond the memory so far.
  EXPECT_EQ(work(&small, 8), first);
  EXPECT_EQ(memory.bytes_in_use(), 0u);
  EXPECT_EQ(device->allocator().bytes_in_use(), 0u);
}

// Leaves holes of 10 lines and, at the end of what was taken, of 3. Taken for
// one like the other, the end would serve the 2 lines, and the first hole not
// the 8 and the 3.
void LeaveHoles(Device* device, Lifetime lifetime) {
  const auto lines = [&](int64_t n) {
    return Tensor::Empty(device, {16 * n}, DType::kF32, lifetime);
  };
  Tensor hole = lines(10);
  const Tensor between = lines(1);
  Tensor end = lines(3);
  end = {};
  hole = {};
  const Tensor a = lines(2);
  const Tensor b = lines(8);
  const Tensor c = lines(3);
}

TEST(AllocatorTest, AReserveOfWhatADryRunTookServesTheSameRequests) {
  const auto device = OpenCpuDevice({});
  const auto work = [&] {
    LeaveHoles(device.get(), Lifetime::kOps);
    const Tensor kept =
        Tensor::Empty(device.get(), {5}, DType::kF32, Lifetime::kPass);
    LeaveHoles(device.get(), Lifetime::kPass);
  };
  MemoryPlan plan;
  {
    const DryRun dry(device.get());
    work();
    plan = dry.taken();
  }
  EXPECT_EQ(plan.ops, size_t{14 * 64});
  EXPECT_EQ(plan.pass, size_t{15 * 64});
  std::vector<char> ops(plan.ops);
  std::vector<char> pass(plan.pass);
  Allocator memory(&device->backend(), device->queue(), Allocation::kPool);
  memory.Reserve(Lifetime::kOps, ops.data(), ops.size());
  memory.Reserve(Lifetime::kPass, pass.data(), pass.size());
  const Device::Scope scope(device.get(), &memory);
  for (int step = 0; step < 3; ++step) work();
  EXPECT_EQ(memory.reserve_used(Lifetime::kOps), plan.ops);
  EXPECT_EQ(memory.reserve_used(Lifetime::kPass), plan.pass);
  EXPECT_EQ(memory.slab_bytes(), 0u);
}

TEST(AllocatorTest, WhatIsBeyondTheReserveComesFromTheDevice) {
  const auto device = OpenCpuDevice({});
  std::vector<char> reserve(256);
  Allocator memory(&device->backend(), device->queue(), Allocation::kPool);
  memory.Reserve(Lifetime::kOps, reserve.data(), reserve.size());
  const Device::Scope scope(device.get(), &memory);
  const Tensor inside = Tensor::Empty(device.get(), {64}, DType::kF32);
  EXPECT_EQ(inside.data(), reserve.data());
  EXPECT_EQ(memory.slab_bytes(), 0u);
  const Tensor outside = Tensor::Empty(device.get(), {64}, DType::kF32);
  EXPECT_GT(memory.slab_bytes(), 0u);
}

TEST(DryRunTest, ComputesNothingAndTakesNothing) {
  const auto device = OpenCpuDevice({});
  const Tensor before = Tensor::FromHost<float>(device.get(), {1}, {3.0f});
  const size_t in_use = device->allocator().bytes_in_use();
  {
    const DryRun dry(device.get());
    Tensor huge = Tensor::Zeros(device.get(), {int64_t{1} << 40}, DType::kF32);
    Tensor old = before;
    ops::Fill(1.0f, &huge);
    ops::Fill(1.0f, &old);
    EXPECT_EQ(device->backend().effect, Effect::kNone);
    EXPECT_EQ(dry.taken().ops, size_t{4} << 40);
  }
  EXPECT_EQ(device->allocator().bytes_in_use(), in_use);
  EXPECT_EQ(before.ToHost<float>(), std::vector<float>{3.0f});
  EXPECT_EQ(device->backend().effect, Effect::kAll);
}

TEST(AllocatorDeathTest, OtherWorkThanWasPlannedIsFatal) {
  const auto device = OpenCpuDevice({});
  Allocator memory(&device->backend(), device->queue(), Allocation::kPool);
  Allocator::Plan plan;
  memory.BeginPlan(&plan);
  memory.Release(memory.Allocate(64, Lifetime::kOps), 64, Lifetime::kOps);
  memory.EndPlan();
  EXPECT_DEATH(
      {
        memory.BeginPlan(&plan);
        memory.Allocate(128, Lifetime::kOps);
      },
      "other work than was planned");
}

TEST(AllocatorTest, CountsWhatIsHandedOut) {
  const auto device = OpenCpuDevice({});
  const Allocator& allocator = device->allocator();
  {
    const Tensor a = Tensor::Empty(device.get(), {1024}, DType::kF32);
    const Tensor b = Tensor::Empty(device.get(), {256}, DType::kF32);
    EXPECT_EQ(allocator.bytes_in_use(), 5120u);
  }
  EXPECT_EQ(allocator.bytes_in_use(), 0u);
}

TEST(AllocatorTest, FreedNeighboursServeALargerRequest) {
  const auto device = OpenCpuDevice({});
  Tensor a = Tensor::Empty(device.get(), {1 << 18}, DType::kF32);
  Tensor b = Tensor::Empty(device.get(), {1 << 18}, DType::kF32);
  void* first = a.data();
  a = {};
  b = {};
  EXPECT_EQ(Tensor::Empty(device.get(), {1 << 19}, DType::kF32).data(), first);
}

TEST(AllocatorTest, WhatStaysForAPassBreaksUpNoBlockOfOps) {
  const auto device = OpenCpuDevice({});
  Tensor wide = Tensor::Empty(device.get(), {3 << 20}, DType::kF32);
  void* const block = wide.data();
  wide = {};
  const Tensor kept =
      Tensor::Empty(device.get(), {1 << 20}, DType::kF32, Lifetime::kPass);
  EXPECT_EQ(Tensor::Empty(device.get(), {3 << 20}, DType::kF32).data(), block);
}

}  // namespace
}  // namespace lorica
