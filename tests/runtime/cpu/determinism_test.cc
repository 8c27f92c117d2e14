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

Values RunOn(const OpCase& op_case, int threads) {
  const std::unique_ptr<Device> device =
      OpenCpuDevice({.threads = threads, .allocation = Allocation::kDirect});
  const PreparedOp op = op_case.prepare(device.get());
  op.run();
  Values values;
  for (const OpResult& result : op.results) {
    values.push_back(result.value.ToFloats());
  }
  return values;
}

TEST(DeterminismTest, RunsOnTwoThreadsAreEqual) {
  for (const OpCase& op_case : OpCases()) {
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const Values first = RunOn(op_case, 2);
    for (int run = 0; run < 3; ++run) EXPECT_EQ(RunOn(op_case, 2), first);
  }
}

TEST(DeterminismTest, OnlyAttentionBackwardKnowsTheThreadCount) {
  // Products are oneDNN's, which may cut a sum for its threads.
  const std::set<std::string> may_differ = {
      "attention_backward", "matmul",      "lora_forward",
      "lora_backward",      "logit_stats", "logit_grad"};
  for (const OpCase& op_case : OpCases()) {
    if (may_differ.count(op_case.entry) > 0) continue;
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const Values one = RunOn(op_case, 1);
    for (const int threads : {2, 3}) EXPECT_EQ(RunOn(op_case, threads), one);
  }
}

}  // namespace
}  // namespace lorica
