// Every entry of the CUDA table against its scalar reference, on a real GPU.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/cuda_device/devices.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

class GpuOpsTest : public testing::Test {
 protected:
  void SetUp() override { SkipWithoutGpus(1); }
};

TEST_F(GpuOpsTest, MatchTheirReferences) {
  const std::unique_ptr<Device> device = OpenGpu(0);
  ASSERT_NE(device, nullptr);
  for (const OpCase& op_case : OpCases()) {
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const std::vector<OpExpectation> expected = op_case.expect();
    const PreparedOp op = op_case.prepare(device.get());
    op.run();
    ASSERT_EQ(op.results.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
    }
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
