// Every entry of the CUDA table against its scalar reference, on a real GPU.
#include <gtest/gtest.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/cuda/queue.h"
#include "runtime/cuda/sdpa.h"
#include "tests/cuda_device/devices.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

// The results of a run, which must match.
std::vector<std::vector<float>> RunAndMatch(const OpCase& op_case,
                                            Device* device) {
  SCOPED_TRACE(op_case.entry + "/" + op_case.name);
  const std::vector<OpExpectation> expected = op_case.expect();
  const PreparedOp op = op_case.prepare(device);
  op.run();
  EXPECT_EQ(op.results.size(), expected.size());
  std::vector<std::vector<float>> values;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
    values.push_back(op.results[i].value.ToFloats());
  }
  return values;
}

class GpuOpsTest : public testing::Test {
 protected:
  void SetUp() override { SkipWithoutGpus(1); }
};

TEST_F(GpuOpsTest, MatchTheirReferences) {
  const std::unique_ptr<Device> device = OpenGpu(0);
  ASSERT_NE(device, nullptr);
  for (const OpCase& op_case : OpCases()) RunAndMatch(op_case, device.get());
}

// By lorica's own kernels, and by cuDNN's where it is built in and has the
// shape. In any order of sums the last bits may change.
TEST_F(GpuOpsTest, AttentionMatchesWhoeverComputesItAndRepeatsItsBits) {
  for (const AttentionKernels kernels :
       {AttentionKernels::kOwn, AttentionKernels::kCudnn,
        AttentionKernels::kCudnnAnyOrder}) {
    const std::unique_ptr<Device> device = OpenGpu(0);
    ASSERT_NE(device, nullptr);
    cuda::CudnnAttention& attention = *cuda::Of(device->queue())->attention;
    attention.Choose(kernels);
    for (const OpCase& op_case : OpCases()) {
      if (op_case.entry.rfind("attention", 0) != 0) continue;
      const auto first = RunAndMatch(op_case, device.get());
      if (kernels == AttentionKernels::kCudnnAnyOrder) continue;
      EXPECT_EQ(RunAndMatch(op_case, device.get()), first) << op_case;
    }
    std::cout << attention.calls() << " calls of cuDNN, " << attention.plans()
              << " shapes asked for\n";
  }
}

// Or the test above compares lorica's own kernels with themselves.
TEST_F(GpuOpsTest, CudnnComputesAttentionBothWaysWhereItIsBuiltIn) {
  const std::unique_ptr<Device> device = OpenGpu(0);
  ASSERT_NE(device, nullptr);
  const absl::Status library =
      cuda::OpenSdpa(cuda::StreamOf(device->queue())).status();
  if (absl::IsUnimplemented(library)) {
    GTEST_SKIP() << std::string(library.message());
  }
  ASSERT_TRUE(library.ok()) << std::string(library.message());
  cuda::CudnnAttention& attention = *cuda::Of(device->queue())->attention;
  attention.Choose(AttentionKernels::kCudnnAnyOrder);
  for (const std::string entry : {"attention", "attention_backward"}) {
    const int64_t before = attention.calls();
    for (const OpCase& op_case : OpCases()) {
      if (op_case.entry == entry) RunAndMatch(op_case, device.get());
    }
    EXPECT_GT(attention.calls(), before) << entry;
  }
}

TEST_F(GpuOpsTest, RunTheShapesOfAModel) {
  const std::unique_ptr<Device> device = OpenGpu(0);
  ASSERT_NE(device, nullptr);
  for (const OpCase& op_case : ModelSizeCases()) {
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const PreparedOp op = op_case.prepare(device.get());
    op.run();
    device->Synchronize();
  }
}

}  // namespace
}  // namespace lorica
