#include "runtime/trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "runtime/device.h"
#include "runtime/traced_backend.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

TEST(TraceTest, RecordsNestedSpansAsTheyEnd) {
  StartTrace();
  {
    const Span outer(SpanKind::kLayer, "outer", "forward");
    const Span inner(SpanKind::kOp, "inner", "", {.flops = 6});
  }
  const std::vector<SpanRecord> spans = StopTrace();
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_STREQ(spans[0].name, "inner");
  EXPECT_EQ(spans[0].work.flops, 6);
  EXPECT_STREQ(spans[1].name, "outer");
  EXPECT_STREQ(spans[1].about, "forward");
  EXPECT_LE(0, spans[1].begin_ns);
  EXPECT_LE(spans[1].begin_ns, spans[0].begin_ns);
  EXPECT_LE(spans[0].end_ns, spans[1].end_ns);
}

TEST(TraceTest, ForgetsSpansOutsideIt) {
  { const Span before(SpanKind::kOp, "before"); }
  EXPECT_FALSE(Tracing());
  StartTrace();
  EXPECT_TRUE(Tracing());
  {
    const Span across(SpanKind::kOp, "across");
    EXPECT_TRUE(StopTrace().empty());
    StartTrace();
  }
  EXPECT_TRUE(StopTrace().empty());
}

TEST(TraceTest, TellsThreadsApart) {
  StartTrace();
  { const Span here(SpanKind::kOp, "here"); }
  std::thread([] { const Span there(SpanKind::kOp, "there"); }).join();
  const std::vector<SpanRecord> spans = StopTrace();
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_NE(spans[0].thread, spans[1].thread);
}

// Every case of the table runs through the traced one and leaves a span of its
// entry's name with the work that it had.
TEST(TracedBackendTest, MarksEveryEntry) {
  const std::unique_ptr<Device> device = OpenCpuDevice({});
  device->Interpose(TracedBackend(&device->backend()));
  for (const OpCase& op_case : OpCases()) {
    const PreparedOp op = op_case.prepare(device.get());
    StartTrace();
    op.run();
    const std::vector<SpanRecord> spans = StopTrace();
    const auto span = std::find_if(
        spans.begin(), spans.end(),
        [&](const SpanRecord& s) { return s.name == op_case.entry; });
    ASSERT_NE(span, spans.end()) << op_case;
    EXPECT_GT(span->work.flops + span->work.bytes, 0) << op_case;
    if (op_case.flops > 0) {
      EXPECT_EQ(span->work.flops, op_case.flops) << op_case;
    }
  }
}

TEST(TracedBackendTest, MarksNothingWhileNoTraceIsTaken) {
  const std::unique_ptr<Device> device = OpenCpuDevice({});
  device->Interpose(TracedBackend(&device->backend()));
  OpCases().front().prepare(device.get()).run();
  StartTrace();
  EXPECT_TRUE(StopTrace().empty());
}

}  // namespace
}  // namespace lorica
