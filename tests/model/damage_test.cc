// Damaged model and adapter files: an error or something that can be used.
#include "tests/support/damage.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "model/params.h"
#include "model/peft_adapter.h"
#include "model/weight_source.h"
#include "runtime/device.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_directory.h"
#include "tests/support/tiny_llama.h"

namespace lorica {
namespace {

// Small, so that every cut of the file is soon tried.
TinyLlama Smallest() {
  return {.vocab = 2,
          .hidden = 2,
          .layers = 1,
          .heads = 1,
          .kv_heads = 1,
          .head_dim = 2,
          .mlp = 2,
          .tied = true};
}

// Loads everything where the model opens. Returns whether it does.
bool Use(const std::string& path, Device* device) {
  const auto source = WeightSource::Open(path);
  if (!source.ok()) {
    EXPECT_FALSE(source.status().message().empty());
    return false;
  }
  const auto split = SplitModel(source->config(), 1);
  EXPECT_TRUE(split.ok());
  for (const ParamSpec& param : FrozenParams(source->config(), *split)) {
    const Slice whole = SliceOf(param.shard, param.shape, 0);
    const Tensor tensor = source->Load(param.name, whole, DType::kBF16, device);
    EXPECT_EQ(tensor.ToFloats().size(),
              static_cast<size_t>(param.shape.elements()));
  }
  return true;
}

class ModelDamageTest : public ::testing::Test {
 protected:
  const std::unique_ptr<Device> device_ =
      OpenCpuDevice({.threads = 1, .allocation = Allocation::kDirect});
  TempDirectory dir_;
};

TEST_F(ModelDamageTest, GgufLoadsOrIsRefused) {
  GgufBuilder builder;
  Smallest().AddGgufValues(&builder);
  Smallest().AddGgufWeights(StoredType::kF32, &builder);
  const std::string whole = builder.Build();
  int opened = 0;
  ForEachDamage(whole, whole.size() - 12 * 32, 3000,
                [&](const std::string& bytes) {
                  WriteBytes(dir_ / "m.gguf", bytes);
                  opened += Use(dir_ / "m.gguf", device_.get());
                });
  EXPECT_GT(opened, 10);
}

TEST_F(ModelDamageTest, ConfigLoadsOrIsRefused) {
  Smallest().WriteDirectory(dir_.path(), StoredType::kF32);
  Json config = Smallest().Config();
  config["rope_parameters"] = {{"rope_type", "llama3"},
                               {"rope_theta", 10000.0},
                               {"factor", 8.0},
                               {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0}};
  const std::string whole = config.dump();
  int opened = 0;
  ForEachDamage(whole, whole.size(), 3000, [&](const std::string& bytes) {
    WriteBytes(dir_ / "config.json", bytes);
    opened += Use(dir_.path(), device_.get());
  });
  EXPECT_GT(opened, 10);
}

TEST_F(ModelDamageTest, AdapterConfigIsReadOrRefused) {
  PeftAdapter adapter;
  adapter.lora.rank = 1;
  adapter.lora.targets = {"q_proj"};
  adapter.lora.rank_pattern["v_proj"] = 2;
  adapter.base_model = "base";
  adapter.modules["model.layers.0.self_attn.q_proj"] = {1, 1, 1, {1}, {1}};
  ASSERT_TRUE(WritePeftAdapter(dir_ / "a", adapter).ok());
  const std::string whole = ReadBytes(dir_ / "a/adapter_config.json");
  int opened = 0;
  ForEachDamage(whole, whole.size(), 3000, [&](const std::string& bytes) {
    WriteBytes(dir_ / "a/adapter_config.json", bytes);
    const auto read = ReadPeftAdapter(dir_ / "a");
    opened += read.ok();
    EXPECT_TRUE(!read.ok() || read->modules.size() == 1);
  });
  EXPECT_GT(opened, 10);
}

}  // namespace
}  // namespace lorica
