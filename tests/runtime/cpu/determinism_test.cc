// Results are functions of the arguments and of the thread count, and where
// nothing is summed across threads not even of that.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/allocator.h"
#include "runtime/device.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

using Values = std::vector<std::vector<float>>;

std::unique_ptr<Device> Open(int threads) {
  return OpenCpuDevice({.threads = threads, .allocation = Allocation::kDirect});
}

Values RunOn(const OpCase& op_case, Device* device) {
  const PreparedOp op = op_case.prepare(device);
  op.run();
  Values values;
  for (const OpResult& result : op.results) {
    values.push_back(result.value.ToFloats());
  }
  return values;
}

TEST(DeterminismTest, RunsOnTwoThreadsAreEqual) {
  const std::unique_ptr<Device> device = Open(2);
  for (const OpCase& op_case : OpCases()) {
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const Values first = RunOn(op_case, device.get());
    for (int run = 0; run < 2; ++run) {
      EXPECT_EQ(RunOn(op_case, device.get()), first);
    }
  }
}

TEST(DeterminismTest, OnlyProductsAndAttentionBackwardKnowTheThreadCount) {
  // oneDNN may cut a product's sum for its threads; attention's backward pass
  // cuts dq's.
  const std::set<std::string> may_differ = {
      "attention_backward", "matmul",      "lora_forward",
      "lora_backward",      "logit_stats", "logit_grad"};
  const std::unique_ptr<Device> one = Open(1);
  const std::unique_ptr<Device> three = Open(3);
  for (const OpCase& op_case : OpCases()) {
    if (may_differ.count(op_case.entry) > 0) continue;
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    EXPECT_EQ(RunOn(op_case, three.get()), RunOn(op_case, one.get()));
  }
}

}  // namespace
}  // namespace lorica
