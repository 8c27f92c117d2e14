// A GPT-2 through the whole program: trained on a mesh, taken up on another,
// evaluated, continued, exported.
#include "model/families/gpt2.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "model/params.h"
#include "model/text/tokenizer_directory.h"
#include "runtime/check.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"
#include "runtime/random.h"
#include "tests/launch/program.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPositions = 192;

// Two blocks of three heads with random weights, and the tokenizer that is like
// GPT-2's; no chat template.
void WriteModel(const std::string& directory) {
  fs::create_directory(directory);
  fs::copy("tests/golden/tokenizers/gpt2.json", directory + "/tokenizer.json");
  const auto tokenizer = ReadTokenizerDirectory(directory);
  CHECK(tokenizer.ok()) << tokenizer.status();
  const Json json = {{"architectures", {"GPT2LMHeadModel"}},
                     {"model_type", "gpt2"},
                     {"vocab_size", tokenizer->tokens.size()},
                     {"n_embd", 24},
                     {"n_head", 3},
                     {"n_layer", 2},
                     {"n_positions", kPositions},
                     {"eos_token_id", 0}};
  WriteBytes(directory + "/config.json", json.dump());
  const auto config = Gpt2FromJson(json, "config.json");
  CHECK(config.ok()) << config.status();
  std::map<std::string, std::vector<float>> values;
  std::vector<SafetensorsData> tensors;
  for (const ParamSpec& param :
       FrozenParams(*config, *SplitModel(*config, 1))) {
    std::vector<float>& elements = values[param.name];
    if (!elements.empty()) continue;  // A further section.
    const RandomField field = {.seed = 1,
                               .stream = StreamOf(param.name.c_str())};
    const Shape& shape = param.shape;
    std::vector<int64_t> extents = {shape[0]};
    if (shape.rank() == 2) extents.push_back(shape[1]);
    if (param.file_order == FileOrder::kTransposed) {
      extents = {shape[1], shape[0]};
    }
    const float mean = absl::StrContains(param.name, ".ln_") &&
                               absl::EndsWith(param.name, ".weight")
                           ? 1.0f
                           : 0.0f;
    for (int64_t i = 0; i < shape.elements(); ++i) {
      elements.push_back(
          mean + 0.6f * (field.Uniform(static_cast<uint64_t>(i)) - 0.5f));
    }
    tensors.push_back(
        {{param.name, StoredType::kF32, extents},
         absl::string_view(reinterpret_cast<const char*>(elements.data()),
                           elements.size() * sizeof(float))});
  }
  CHECK(WriteSafetensors(directory + "/model.safetensors", tensors, {}).ok());
}

class Gpt2Test : public testing::Test {
 protected:
  Gpt2Test() : model_(directory_ / "model") {
    WriteModel(model_);
    WriteBytes(directory_ / "train.jsonl",
               FirstLines("configs/data/train.jsonl", 16));
    WriteBytes(directory_ / "valid.jsonl",
               FirstLines("configs/data/valid.jsonl", 6));
    WriteBytes(directory_ / "run.textproto",
               R"(model { dtype: F32 }
                  adapter { rank: 4 alpha: 8 target: "c_attn" target: "c_proj" }
                  data { sequence_length: 160 }
                  train { steps: 4 global_batch: 2 micro_batch: 1
                          learning_rate: 1e-2 warmup_steps: 0
                          schedule: CONSTANT }
                  threads: 1)");
  }

  Outcome Train(const std::string& run, std::vector<std::string> overrides,
                int ranks) const {
    overrides.insert(
        overrides.end(),
        {"model.path=" + model_, "data.train=" + (directory_ / "train.jsonl"),
         "checkpoint.directory=" + (directory_ / run),
         absl::StrCat("mesh.tensor=", ranks)});
    std::vector<std::string> arguments = {"train", "--config",
                                          directory_ / "run.textproto"};
    for (const std::string& override : overrides) {
      arguments.insert(arguments.end(), {"--set", override});
    }
    return RunLorica(arguments, ranks);
  }

  double Loss(const std::vector<std::string>& model) const {
    std::vector<std::string> arguments = {"eval", "--dtype", "f32", "--data",
                                          directory_ / "valid.jsonl"};
    arguments.insert(arguments.end(), model.begin(), model.end());
    const Outcome outcome = RunLorica(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const size_t at = outcome.out.find("loss ");
    return at == std::string::npos
               ? NAN
               : std::strtod(outcome.out.c_str() + at + 5, nullptr);
  }

  std::vector<double> Losses(const std::string& run) const {
    return LossesIn(directory_ / (run + "/metrics.jsonl"), "loss");
  }

  const TempDirectory directory_;
  const std::string model_;
};

TEST_F(Gpt2Test, GoesOnElsewhereAndIsExported) {
  Outcome outcome = Train("one", {}, 1);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  outcome = Train("two", {"train.steps=2"}, 3);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  outcome = Train("two", {"mesh.tensor_sequence=true"}, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::vector<double> one = Losses("one");
  const std::vector<double> two = Losses("two");
  ASSERT_EQ(one.size(), 4u);
  ASSERT_EQ(two.size(), 4u);
  for (size_t step = 0; step < 4; ++step) {
    EXPECT_NEAR(two[step], one[step], 1e-4) << step;
  }

  const std::string adapter = directory_ / "two/step_00000004";
  const auto config = ReadJsonFile(adapter + "/adapter_config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->at("fan_in_fan_out"), true);
  const double base = Loss({"--model", model_});
  const double adapted = Loss({"--model", model_, "--adapter", adapter});
  EXPECT_GT(std::abs(adapted - base), 1e-3);
  const std::string merged = directory_ / "merged";
  outcome = RunLorica({"export", "--checkpoint", adapter, "--format", "merged",
                       "--out", merged});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NEAR(Loss({"--model", merged}), adapted, 1e-5);

  outcome = RunLorica({"export", "--checkpoint", adapter, "--format", "gguf",
                       "--out", directory_ / "lora.gguf"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
}

TEST_F(Gpt2Test, TheLastPositionEndsTheText) {
  std::string prompt;
  for (int i = 0; i < 95; ++i) prompt += " 0";
  const Outcome outcome = RunLorica({"generate", "--model", model_, "--prompt",
                                     prompt, "--max_tokens", "1000"},
                                    /*ranks=*/2);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_LT(outcome.out.size(), 10 * kPositions);
}

}  // namespace
}  // namespace lorica
