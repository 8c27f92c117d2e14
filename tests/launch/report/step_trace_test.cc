#include "launch/report/step_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "runtime/ops.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using Json = nlohmann::json;

TEST(StepTraceTest, NamesTimesAndRatesOfASpan) {
  const SpanRecord span = {.name = "lora_forward",
                           .about = "",
                           .kind = SpanKind::kOp,
                           .thread = 1,
                           .begin_ns = 2500,
                           .end_ns = 4500,
                           .work = {.flops = 8000, .bytes = 1000}};
  const Json events = Json::parse("[" + TraceEvents({span}, 3) + "]");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["args"]["name"], "rank 3");
  EXPECT_EQ(events[1]["name"], "lora_forward");
  EXPECT_EQ(events[1]["cat"], "op");
  EXPECT_EQ(events[1]["ph"], "X");
  EXPECT_EQ(events[1]["ts"], 2.5);
  EXPECT_EQ(events[1]["dur"], 2.0);
  EXPECT_EQ(events[1]["pid"], 3);
  EXPECT_EQ(events[1]["args"]["GFLOP/s"], 4.0);
  EXPECT_EQ(events[1]["args"]["GB/s"], 0.5);
}

// Steps 1 to 5 on a rank, each an op, of which 2 and 3 are asked for.
TEST(StepTraceTest, WritesTheChosenSteps) {
  const std::string path = testing::TempDir() + "/step_trace_test.json";
  RunRanks(1, [&](std::unique_ptr<Communicator> world) {
    const auto session = Session::Over(std::move(world), Placement{}, {}, {});
    ASSERT_TRUE(session.ok());
    StepTrace trace({.trace = path, .trace_first_step = 2, .trace_steps = 2}, 5,
                    **session);
    ASSERT_TRUE(trace.OpenFile().ok());
    Tensor y = Tensor::Empty((*session)->device(), {4}, DType::kF32);
    for (int64_t step = 1; step <= 5; ++step) {
      trace.Before(step);
      { const Span span(SpanKind::kPhase, step % 2 == 0 ? "even" : "odd"); }
      ops::Fill(1.0f, &y);
      ASSERT_TRUE(trace.After(step).ok());
    }
  });
  std::ifstream file(path);
  const Json trace = Json::parse(file);
  std::multiset<std::string> names;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "X") names.insert(event["name"]);
  }
  EXPECT_THAT(names,
              testing::UnorderedElementsAre("even", "odd", "fill", "fill"));
  std::filesystem::remove(path);
}

TEST(StepTraceTest, SaysWhichFieldNamesAFolderThatIsNotThere) {
  RunRanks(1, [&](std::unique_ptr<Communicator> world) {
    const auto session = Session::Over(std::move(world), Placement{}, {}, {});
    ASSERT_TRUE(session.ok());
    const StepTrace trace({.trace = "/nowhere/trace.json"}, 5, **session);
    EXPECT_THAT(std::string(trace.OpenFile().message()),
                testing::AllOf(testing::HasSubstr("report.trace"),
                               testing::HasSubstr("/nowhere")));
  });
}

}  // namespace
}  // namespace lorica
