// Greedy continuations of the tiny models, token by token through the caches,
// against those of transformers, which reads the whole text for every token.
#include "launch/commands/decoding.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launch/base_model.h"
#include "launch/session.h"
#include "runtime/files/json.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

class GreedyGoldenTest : public testing::TestWithParam<const char*> {};

std::vector<int32_t> TokensOf(const Json& greedy, const char* name) {
  return greedy.at(name).get<std::vector<int32_t>>();
}

// Expects every rank to continue the prompt as transformers does.
void ExpectGreedy(const Golden& golden, int ranks) {
  const Json& greedy = golden.settings().at("greedy");
  const std::vector<int32_t> expected = TokensOf(greedy, "continuation");
  RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
    const auto session =
        Session::Over(std::move(world), Placement{}, {.tensor = ranks}, {});
    ASSERT_TRUE(session.ok()) << session.status().message();
    const auto base = OpenBaseModel(golden.model_path(), **session);
    ASSERT_TRUE(base.ok()) << base.status().message();
    const auto gpt = LoadGpt(*base, DType::kF32, kTensorParallel, **session);
    std::vector<int32_t> told;
    const std::vector<int32_t> tokens = Continue(
        TokensOf(greedy, "prompt"), {.max_tokens = std::ssize(expected)}, *gpt,
        nullptr, (*session)->device(),
        [&](int32_t token) { told.push_back(token); });
    EXPECT_EQ(tokens, expected);
    EXPECT_EQ(told, expected);
  });
}

TEST_P(GreedyGoldenTest, ContinuationIsThatOfTransformers) {
  const Golden golden(GetParam());
  for (const int ranks : {1, 2, 3}) {
    SCOPED_TRACE(ranks);
    ExpectGreedy(golden, ranks);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, GreedyGoldenTest,
    testing::Values("heads_5_5_untied", "heads_9_3_tied_sharded",
                    "heads_4_2_rope_llama3", "heads_6_2_biased_qwen2",
                    "heads_7_gpt2"),
    [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace lorica
