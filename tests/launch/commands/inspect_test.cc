#include "launch/commands/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/files/safetensors.h"
#include "tests/launch/state/tiny_adapter.h"
#include "tests/support/temp_directory.h"
#include "tests/support/tiny_llama.h"

namespace lorica {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

std::string Inspected(const std::string& path) {
  std::ostringstream out;
  const absl::Status status = Inspect(path, Verification::kNone, out);
  EXPECT_TRUE(status.ok()) << status;
  return out.str();
}

TEST(InspectTest, ShowsAModelDirectory) {
  const std::string text = Inspected("tests/golden/tiny_text/model");
  EXPECT_THAT(text, HasSubstr("a Hugging Face model\nLlamaForCausalLM: 2 "
                              "layers, hidden size 96, 6 heads of 16 (3 for "
                              "keys and values)"));
  EXPECT_THAT(text, HasSubstr("tied head"));
  EXPECT_THAT(text,
              ContainsRegex("model.embed_tokens.weight +\\[500, 96\\] +BF16 +"
                            "96000\n"));
  EXPECT_THAT(text, HasSubstr("total: 20 tensors"));
}

TEST(InspectTest, ShowsAGguf) {
  const std::string text = Inspected("tests/golden/tiny_text/model.gguf");
  EXPECT_THAT(text, HasSubstr("a GGUF file\nLlamaForCausalLM: 2 layers"));
  EXPECT_THAT(text, HasSubstr("llama.rope.freq_base = 10000\n"));
  EXPECT_THAT(text,
              HasSubstr("tokenizer.ggml.tokens = a list of 500 strings\n"));
  EXPECT_THAT(text,
              ContainsRegex("blk.0.attn_q.weight +\\[96, 96\\] +Q4_1 +5760\n"));
}

TEST(InspectTest, ShowsAnAdapter) {
  const std::string text =
      Inspected("tests/golden/heads_9_3_tied_sharded/adapter_qv");
  EXPECT_THAT(text, HasSubstr("a PEFT adapter\nrank 4, alpha 8, dropout 0, "
                              "scaling alpha / rank\n"));
  EXPECT_THAT(text, HasSubstr("base model model\n"));
  EXPECT_THAT(text, ContainsRegex("layers.0.self_attn.v_proj.lora_B.weight "));
}

TEST(InspectTest, ShowsAndVerifiesTheStateOfASave) {
  const TempDirectory dir;
  const std::string save = dir / "step_00000005";
  WriteTinySave(save, /*ranks=*/2, /*seed=*/1);
  std::string text = Inspected(save);
  EXPECT_THAT(text, HasSubstr("a save without its adapter\nstate after step 5 "
                              "of ?, seed 1, written by 1 data x 2 tensor "
                              "ranks; 1 anomalies, 2 batches passed over\n84 "
                              "tensors of adapter and moments:\n"));
  EXPECT_THAT(text, ContainsRegex("state/shard-1-of-2.safetensors: [0-9]+ "
                                  "pieces, [0-9]+ bytes\n"));
  std::filesystem::copy("tests/golden/heads_9_3_tied_sharded/adapter_qv", save);
  WriteBytes(dir / "latest", "step_00000005\n");
  std::ostringstream out;
  ASSERT_TRUE(Inspect(dir.path(), Verification::kEveryByte, out).ok());
  EXPECT_THAT(out.str(), HasSubstr("a run; its newest save:\n" + save +
                                   ": a PEFT adapter\nrank 4"));
  EXPECT_THAT(out.str(), HasSubstr("verified: 2 shards and 0 files beside"));

  const std::string shard = save + "/state/shard-1-of-2.safetensors";
  std::string bytes = ReadBytes(shard);
  bytes[bytes.size() - 5] ^= 4;
  WriteBytes(shard, bytes);
  const absl::Status status = Inspect(save, Verification::kEveryByte, out);
  EXPECT_THAT(status.message(), HasSubstr("shard-1-of-2.safetensors"));
}

TEST(InspectTest, LayersComeInNaturalOrder) {
  const TempDirectory dir;
  ASSERT_TRUE(WriteSafetensors(dir / "a",
                               {{{{"layers.10.w", StoredType::kU8, {1}}, "x"},
                                 {{"layers.9.w", StoredType::kU8, {1}}, "x"},
                                 {{"layers", StoredType::kU8, {1}}, "x"}}},
                               {{"format", "pt"}})
                  .ok());
  const std::string text = Inspected(dir / "a");
  EXPECT_THAT(text, HasSubstr("a safetensors file\nformat = pt\n"));
  EXPECT_LT(text.find("layers  "), text.find("layers.9.w"));
  EXPECT_LT(text.find("layers.9.w"), text.find("layers.10.w"));
}

TEST(InspectTest, ListsAModelThatCannotBeRun) {
  const TempDirectory dir;
  const TinyLlama tiny;
  tiny.WriteDirectory(dir.path(), StoredType::kF32);
  Json config = tiny.Config();
  config["hidden_act"] = "gelu";
  WriteBytes(dir / "config.json", config.dump());
  const std::string text = Inspected(dir.path());
  EXPECT_THAT(text, HasSubstr("cannot be run: "));
  EXPECT_THAT(text, HasSubstr("hidden_act is \"gelu\""));
  EXPECT_THAT(text, HasSubstr("total: 21 tensors"));
}

TEST(InspectTest, VerifyReadsEveryElement) {
  const TempDirectory dir;
  const std::string path = dir / "a.safetensors";
  const auto verified = [&](const std::vector<float>& values) {
    const std::string bytes(reinterpret_cast<const char*>(values.data()),
                            values.size() * sizeof(float));
    EXPECT_TRUE(
        WriteSafetensors(path, {{{{"w", StoredType::kF32, {2, 2}}, bytes}}}, {})
            .ok());
    std::ostringstream out;
    const absl::Status status = Inspect(path, Verification::kEveryByte, out);
    return status.ok() ? out.str() : std::string(status.message());
  };
  EXPECT_THAT(verified({1, 2, 3, 4}),
              HasSubstr("verified: 16 bytes read, every element finite\n"));
  EXPECT_THAT(verified({1, INFINITY, 3, NAN}),
              HasSubstr("tensor w has 2 elements that are infinite or NaN"));
}

std::string Compared(const std::string& first, const std::string& second) {
  std::ostringstream out;
  const absl::Status status = InspectDifference(first, second, out);
  EXPECT_TRUE(status.ok()) << status;
  return out.str();
}

TEST(InspectTest, ComparesTwoAdapters) {
  const std::string golden = "tests/golden/heads_9_3_tied_sharded/";
  const std::string text =
      Compared(golden + "adapter_qv", golden + "adapter_all");
  EXPECT_THAT(text, HasSubstr("modules, rank 4, alpha 8\n"));
  // Other ranks: the changes can be compared, the factors cannot.
  EXPECT_THAT(text, ContainsRegex("layers.0.self_attn.q_proj +[0-9.]+ +[0-9.]+ "
                                  "+[0-9.]+ +-?0\\.[0-9]+ +- +-\n"));
  EXPECT_THAT(text, ContainsRegex("layers.0.mlp.up_proj +0 .* only second"));
  EXPECT_THAT(Compared(golden + "adapter_qv", golden + "adapter_qv"),
              ContainsRegex("total +[0-9.]+ +[0-9.]+ +0 +1.000000"));
}

TEST(InspectTest, ErrorsNameThePath) {
  const TempDirectory dir;
  std::ostringstream out;
  EXPECT_THAT(Inspect(dir / "none", Verification::kNone, out).message(),
              HasSubstr(dir / "none"));
  EXPECT_THAT(Inspect(dir.path(), Verification::kNone, out).message(),
              HasSubstr("holds none of config.json, adapter_config.json"));
  WriteBytes(dir / "text", "hello, this is no tensor");
  EXPECT_THAT(Inspect(dir / "text", Verification::kNone, out).message(),
              HasSubstr("not a safetensors file"));
}

}  // namespace
}  // namespace lorica
