// The host side of the CUDA table on the stand-ins for the runtime and
// cuBLASLt: products, memory and copies, in every order that streams are free
// to take. The kernels by themselves are kernels_test's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/cuda/host_ring.h"
#include "runtime/cuda/queue.h"
#include "runtime/ops.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::IsEmpty;

std::unique_ptr<Device> OpenFakeGpu(Allocation allocation) {
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenCudaDevice({.allocation = allocation});
  if (device.ok()) return *std::move(device);
  ADD_FAILURE() << std::string(device.status().message());
  return nullptr;
}

class CudaBackendTest : public testing::TestWithParam<Policy> {
 protected:
  void SetUp() override { cuda_fakes::Reset({.policy = GetParam()}); }
  void TearDown() override {
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
    EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
  }
};

INSTANTIATE_TEST_SUITE_P(Policies, CudaBackendTest,
                         testing::ValuesIn(cuda_fakes::kPolicies),
                         testing::PrintToStringParamName());

TEST(CudaProductsTest, MatchTheirReferences) {
  cuda_fakes::Reset({});
  const std::set<std::string> entries = {"matmul", "lora_forward",
                                         "lora_backward", "squared_norm"};
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
  int cases = 0;
  for (const OpCase& op_case : OpCases()) {
    if (entries.count(op_case.entry) == 0) continue;
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const std::vector<OpExpectation> expected = op_case.expect();
    const PreparedOp op = op_case.prepare(device.get());
    op.run();
    ASSERT_EQ(op.results.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
    }
    ++cases;
  }
  EXPECT_GT(cases, 20);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// 257 is no number of BF16: 256 + 1 stays 256 where the frozen product is
// rounded before the adapter's 1 is added.
TEST(CudaAdapterTest, IsAddedBeforeTheFrozenProductIsRounded) {
  cuda_fakes::Reset({});
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
  const auto matrix = [&](Shape shape, const std::vector<float>& values) {
    return ops::Convert(Tensor::FromHost<float>(device.get(), shape, values),
                        DType::kBF16);
  };
  const Tensor x = matrix({1, 2}, {256, 1});
  const Tensor a = matrix({1, 2}, {0, 1});
  const Tensor db = Tensor::Zeros(device.get(), {1, 1}, DType::kF32);
  const std::vector<ops::LinearPart> parts = {{.weight = matrix({1, 2}, {1, 1}),
                                               .b = matrix({1, 1}, {1}),
                                               .db = db,
                                               .scale = 1.0f}};
  const ops::LoraForwardResult forward = ops::LoraForward(x, x, a, parts);
  EXPECT_EQ(forward.y[0].ToFloats(), std::vector<float>{258});

  Tensor da = Tensor::Zeros(device.get(), {1, 2}, DType::kF32);
  const ops::LoraBackwardResult backward =
      ops::LoraBackward({{matrix({1, 1}, {2})}}, x, forward.xa, a, &da, parts,
                        ops::InputGrad::kWhole);
  EXPECT_EQ(backward.dx.ToFloats(), (std::vector<float>{2, 4}));
  const cuda::ScratchBlock& sum =
      cuda::Of(device->queue())
          ->scratch[static_cast<size_t>(cuda::ScratchUse::kSum)];
  EXPECT_EQ(sum.bytes, 0u) << "one part needs no sum in F32";
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// More than both buffers hold, and small arrays in between; the host's memory
// goes at once.
TEST_P(CudaBackendTest, CopiesKeepTheirValues) {
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
  const auto count_from = [](int32_t first, size_t count) {
    std::vector<int32_t> values(count);
    std::iota(values.begin(), values.end(), first);
    return values;
  };
  constexpr size_t kLarge = 5 * cuda::HostRing::kBufferBytes / 8 + 3;
  std::vector<Tensor> tensors;
  std::vector<size_t> counts;
  for (int32_t i = 0; i < 8; ++i) {
    counts.push_back(i % 3 == 2 ? kLarge : static_cast<size_t>(i + 1));
    tensors.push_back(Tensor::FromHost<int32_t>(
        device.get(), {static_cast<int64_t>(counts.back())},
        count_from(i, counts.back())));
  }
  for (int32_t i = 0; i < 8; ++i) {
    const size_t at = static_cast<size_t>(i);
    EXPECT_EQ(tensors[at].ToHost<int32_t>(), count_from(i, counts[at])) << i;
  }
}

TEST_P(CudaBackendTest, StepsAfterTheFirstAllocateNothing) {
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kPool);
  const auto step = [&] {
    const Tensor a = Tensor::Zeros(device.get(), {33, 136}, DType::kBF16);
    const Tensor b = Tensor::Zeros(device.get(), {72, 136}, DType::kBF16);
    const Tensor y = ops::Convert(ops::MatmulNT(a, b), DType::kF32);
    return ops::SquaredNorm(y.Reshape({y.elements()}));
  };
  EXPECT_EQ(step(), 0.0);
  const int64_t allocations = cuda_fakes::Allocations();
  const auto& plans = cuda::Of(device->queue())->matmuls;
  EXPECT_EQ(plans.size(), 1u);
  EXPECT_EQ(step(), 0.0);
  EXPECT_EQ(cuda_fakes::Allocations(), allocations);
  EXPECT_EQ(plans.size(), 1u);
}

TEST(CudaBackendDeathTest, OutOfMemorySaysHowMuch) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        cuda_fakes::Reset({.memory_bytes = size_t{1} << 20});
        const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
        Tensor::Empty(device.get(), {1 << 20}, DType::kF32);
      },
      "out of memory: 4194304 bytes wanted, 0 in use on cuda");
}

TEST(CudaBackendTest, DevicesAreListedAndOpenedByNumber) {
  cuda_fakes::Reset({.devices = 2});
  const auto devices = ListCudaDevices();
  ASSERT_TRUE(devices.ok());
  ASSERT_EQ(devices->size(), 2u);
  EXPECT_EQ((*devices)[1].name, "Fake GPU 1");
  EXPECT_EQ((*devices)[1].uuid, "GPU-00000000-0000-0000-0000-000000000001");
  EXPECT_EQ(OpenCudaDevice({.index = 2}).status().message(),
            "there is no GPU 2, but 2 of them, counted from 0");
}

}  // namespace
}  // namespace lorica
