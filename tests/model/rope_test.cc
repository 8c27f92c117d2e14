#include "model/rope.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "runtime/files/json.h"

namespace lorica {
namespace {

// Absent for the kinds that are refused.
std::optional<RopeScaling> ScalingOf(const Json& parameters) {
  RopeScaling scaling;
  const std::string type = parameters.at("rope_type");
  if (type == "default") return scaling;
  if (type != "linear" && type != "llama3") return std::nullopt;
  scaling.factor = parameters.at("factor");
  if (type == "linear") {
    scaling.type = RopeScaling::Type::kLinear;
    return scaling;
  }
  scaling.type = RopeScaling::Type::kLlama3;
  scaling.low_freq_factor = parameters.at("low_freq_factor");
  scaling.high_freq_factor = parameters.at("high_freq_factor");
  scaling.original_max_positions =
      parameters.at("original_max_position_embeddings");
  return scaling;
}

TEST(RopeTest, FrequenciesAreTheBitsOfTransformers) {
  const auto golden = ReadJsonFile("tests/golden/rope.json");
  ASSERT_TRUE(golden.ok()) << golden.status();
  int compared = 0;
  for (const Json& entry : *golden) {
    const Json& parameters = entry.at("rope_parameters");
    const std::optional<RopeScaling> scaling = ScalingOf(parameters);
    if (!scaling) continue;
    ++compared;
    const RopeConfig rope =
        MakeRope(parameters.at("rope_theta"), entry.at("head_dim"), *scaling);
    const std::vector<float> expected = entry.at("inv_freq");
    EXPECT_EQ(rope.inv_freq, expected) << parameters;
    EXPECT_EQ(rope.attention_scaling,
              entry.at("attention_scaling").get<float>());
  }
  EXPECT_GE(compared, 3);
}

// Each of transformers' divisions of a number by a tensor rounds twice. In this
// frequency it shows.
TEST(RopeTest, BlendsWithTransformersRounding) {
  const RopeScaling scaling{.type = RopeScaling::Type::kLlama3,
                            .factor = 8.0,
                            .low_freq_factor = 1.0,
                            .high_freq_factor = 4.0,
                            .original_max_positions = 64.0};
  EXPECT_EQ(MakeRope(10000.0, 32, scaling).inv_freq[3], 0.06430987268686295f);
}

TEST(RopeTest, DivisorsDivideEachFrequency) {
  RopeConfig rope = MakeRope(10000.0, 4, {});
  DivideFrequencies({1.0f, 8.0f}, &rope);
  EXPECT_EQ(rope.inv_freq, (std::vector<float>{1.0f, 0.01f / 8.0f}));
}

}  // namespace
}  // namespace lorica
