#include "model/weight_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "model/params.h"
#include "runtime/device.h"
#include "runtime/files/json.h"
#include "tests/support/temp_directory.h"
#include "tests/support/tiny_llama.h"

namespace lorica {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Device> TestDevice() {
  return OpenCpuDevice({.threads = 2, .allocation = Allocation::kDirect});
}

// Whether the tensor's elements lie in the mapped file.
bool IsBorrowed(const Tensor& tensor, const StoredTensor& stored) {
  const char* data = static_cast<const char*>(tensor.data());
  return data >= stored.bytes.data() &&
         data < stored.bytes.data() + stored.bytes.size();
}

std::vector<float> SliceValues(const TinyLlama::Weight& weight,
                               const Slice& slice) {
  const int64_t cols = weight.shape.back();
  std::vector<float> values;
  for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
    for (int64_t col = slice.cols.begin; col < slice.cols.end; ++col) {
      values.push_back(weight.values[static_cast<size_t>(row * cols + col)]);
    }
  }
  return values;
}

class WeightSourceTest : public ::testing::Test {
 protected:
  // Every rank's slice of every weight, in both types, against the values the
  // model was made of.
  static void ExpectEverySlice(const TinyLlama& tiny, const std::string& path) {
    const auto source = WeightSource::Open(path);
    ASSERT_TRUE(source.ok()) << source.status();
    const auto device = TestDevice();
    const auto weights = tiny.Weights();
    for (const int ranks : {1, 3}) {
      const auto split = SplitModel(source->config(), ranks);
      ASSERT_TRUE(split.ok()) << split.status();
      for (const ParamSpec& param : FrozenParams(source->config(), *split)) {
        for (int rank = 0; rank < ranks; ++rank) {
          const Slice slice = SliceOf(param.shard, param.shape, rank);
          for (const DType dtype : {DType::kF32, DType::kBF16}) {
            const Tensor tensor =
                source->Load(param.name, slice, dtype, device.get());
            EXPECT_TRUE(tensor.dense());
            EXPECT_EQ(tensor.dtype(), dtype);
            EXPECT_EQ(
                reinterpret_cast<uintptr_t>(tensor.data()) % SizeOf(dtype), 0u);
            EXPECT_EQ(tensor.ToFloats(),
                      SliceValues(weights.at(param.name), slice))
                << param.name << " " << rank << " of " << ranks;
          }
        }
      }
    }
  }

  std::string Error() {
    return std::string(WeightSource::Open(dir_.path()).status().message());
  }

  const TinyLlama tiny_;
  const TinyLlama qwen2_ = {.qwen2 = true};
  TempDirectory dir_;
};

TEST_F(WeightSourceTest, SlicesOfADirectoryAreTheWeights) {
  for (const StoredType type : {StoredType::kF32, StoredType::kBF16}) {
    for (const TinyLlama& tiny : {tiny_, qwen2_}) {
      tiny.WriteDirectory(dir_.path(), type);
      ExpectEverySlice(tiny, dir_.path());
    }
  }
}

TEST_F(WeightSourceTest, SlicesOfAGgufAreInHuggingFacesOrder) {
  for (const StoredType type : {StoredType::kF32, StoredType::kBF16}) {
    for (const TinyLlama& tiny : {tiny_, qwen2_}) {
      GgufBuilder builder;
      tiny.AddGgufValues(&builder);
      tiny.AddGgufWeights(type, &builder);
      WriteBytes(dir_ / "m.gguf", builder.Build());
      ExpectEverySlice(tiny, dir_ / "m.gguf");
    }
  }
}

TEST_F(WeightSourceTest, BorrowsWholeRowsOfTheStoredTypeAlone) {
  tiny_.WriteDirectory(dir_.path(), StoredType::kBF16);
  const auto source = WeightSource::Open(dir_.path());
  ASSERT_TRUE(source.ok()) << source.status();
  const auto device = TestDevice();
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  const StoredTensor& stored = source->weights().at(name).tensor;
  const auto borrowed = [&](const Slice& slice, DType dtype) {
    return IsBorrowed(source->Load(name, slice, dtype, device.get()), stored);
  };
  EXPECT_TRUE(borrowed({{0, 32}, {0, 40}}, DType::kBF16));
  EXPECT_TRUE(borrowed({{5, 9}, {0, 40}}, DType::kBF16));
  EXPECT_TRUE(borrowed({{5, 6}, {8, 16}}, DType::kBF16));
  EXPECT_FALSE(borrowed({{0, 32}, {0, 20}}, DType::kBF16));
  EXPECT_FALSE(borrowed({{0, 32}, {0, 40}}, DType::kF32));
}

TEST_F(WeightSourceTest, ABorrowedSliceOutlivesItsSource) {
  tiny_.WriteDirectory(dir_.path(), StoredType::kF32);
  const auto device = TestDevice();
  Tensor tensor;
  {
    const auto source = WeightSource::Open(dir_.path());
    ASSERT_TRUE(source.ok()) << source.status();
    tensor = source->Load("model.norm.weight", {{0, 1}, {0, 32}}, DType::kF32,
                          device.get());
    EXPECT_TRUE(
        IsBorrowed(tensor, source->weights().at("model.norm.weight").tensor));
  }
  std::filesystem::remove_all(dir_ / "model.safetensors");
  EXPECT_EQ(tensor.ToFloats(), tiny_.Weights().at("model.norm.weight").values);
}

TEST_F(WeightSourceTest, MisalignedWeightsAreCopied) {
  tiny_.WriteDirectory(dir_.path(), StoredType::kF32);
  std::string bytes = ReadBytes(dir_ / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  bytes.insert(8 + length, " ");
  ++length;
  std::memcpy(bytes.data(), &length, sizeof(length));
  WriteBytes(dir_ / "model.safetensors", bytes);
  ExpectEverySlice(tiny_, dir_.path());
}

TEST_F(WeightSourceTest, ErrorsNameTensorFileAndShapes) {
  auto weights = tiny_.Weights();
  tiny_.WriteDirectory(dir_.path(), StoredType::kF32);
  const std::string file = dir_ / "model.safetensors";
  const auto write = [&] {
    TinyLlama::WriteWeights(file, StoredType::kF32, weights);
  };
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  const TinyLlama::Weight k = weights.at(name);

  weights.erase(name);
  write();
  EXPECT_EQ(Error(), dir_.path() + ": tensor " + name + " [8, 32] is missing");
  weights[name] = {{32, 8}, k.values};
  write();
  EXPECT_EQ(Error(), file + ": tensor " + name +
                         " is [32, 8]; the model's configuration makes it "
                         "[8, 32]");
  weights[name] = {{2, 4, 32}, k.values};
  write();
  EXPECT_THAT(Error(), HasSubstr("is [2, 4, 32]; the model's"));
  weights[name] = k;
  weights["model.layers.1.self_attn.k_proj.bias"] = {{1}, {0.0f}};
  write();
  EXPECT_EQ(Error(), file +
                         ": tensor model.layers.1.self_attn.k_proj.bias [1] is "
                         "not part of the model that its configuration "
                         "describes");
}

TEST_F(WeightSourceTest, AnUntiedHeadMustBeThereAndATiedOneMay) {
  tiny_.WriteDirectory(dir_.path(), StoredType::kF32);
  auto weights = tiny_.Weights();
  weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{1}, {1.0f}};
  TinyLlama::WriteWeights(dir_ / "model.safetensors", StoredType::kF32,
                          weights);
  Json config = tiny_.Config();
  config["tie_word_embeddings"] = true;
  WriteBytes(dir_ / "config.json", config.dump());
  const auto source = WeightSource::Open(dir_.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->weights().count("lm_head.weight"), 0u);

  weights.erase("lm_head.weight");
  TinyLlama::WriteWeights(dir_ / "model.safetensors", StoredType::kF32,
                          weights);
  EXPECT_TRUE(WeightSource::Open(dir_.path()).ok());
  config["tie_word_embeddings"] = false;
  WriteBytes(dir_ / "config.json", config.dump());
  EXPECT_THAT(Error(), HasSubstr("lm_head.weight [24, 32] is missing"));
}

TEST_F(WeightSourceTest, RefusesTypesItCannotDecode) {
  GgufBuilder builder;
  TinyLlama tiny;
  tiny.hidden = 256;
  tiny.AddGgufValues(&builder);
  builder.Tensor("token_embd.weight", StoredType::kQ6K, {24, 256},
                 std::string(24 * 210, '\0'));
  for (const auto& [name, weight] : tiny.Weights()) {
    if (name == "model.embed_tokens.weight") continue;
    builder.Tensor(TinyLlama::GgufName(name), StoredType::kF32, weight.shape,
                   TinyLlama::BytesAs(StoredType::kF32, weight.values));
  }
  WriteBytes(dir_ / "m.gguf", builder.Build());
  EXPECT_THAT(WeightSource::Open(dir_ / "m.gguf").status().message(),
              HasSubstr("model.embed_tokens.weight is stored as Q6_K"));
}

TEST_F(WeightSourceTest, ErrorsNameThePathAtFault) {
  EXPECT_THAT(WeightSource::Open(dir_ / "none").status().message(),
              HasSubstr(dir_ / "none"));
  EXPECT_THAT(Error(), HasSubstr(dir_ / "config.json"));
  Json config = tiny_.Config();
  WriteBytes(dir_ / "config.json", config.dump());
  EXPECT_THAT(Error(), HasSubstr(dir_ / "model.safetensors"));
  tiny_.WriteDirectory(dir_.path(), StoredType::kF32);
  config["num_hidden_layers"] = int64_t{1} << 30;
  WriteBytes(dir_ / "config.json", config.dump());
  EXPECT_THAT(Error(),
              HasSubstr("has 1073741824 layers, its files 21 tensors"));
}

// Another program's dequantization of every type, in Hugging Face's order.
TEST(WeightSourceGoldenTest, DecodesTheTinyGguf) {
  const auto expected = ReadJsonFile("tests/golden/tiny_text/expected.json");
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto source = WeightSource::Open("tests/golden/tiny_text/model.gguf");
  ASSERT_TRUE(source.ok()) << source.status();
  const auto device = TestDevice();
  for (const Json& weight : expected->at("gguf").at("weights")) {
    const std::string name = weight.at("name");
    if (source->weights().count(name) == 0) continue;  // The tied head.
    const std::vector<int64_t> shape = weight.at("shape");
    const Slice whole = {{0, shape.size() == 2 ? shape[0] : 1},
                         {0, shape.back()}};
    const std::vector<float> values =
        source->Load(name, whole, DType::kF32, device.get()).ToFloats();
    const std::vector<size_t> places = weight.at("places");
    const std::vector<float> golden = weight.at("values");
    for (size_t i = 0; i < places.size(); ++i) {
      EXPECT_EQ(values.at(places[i]), golden[i]) << name << " " << places[i];
    }
    double sum = 0;
    for (const float value : values) sum += value;
    EXPECT_DOUBLE_EQ(sum, weight.at("sum").get<double>()) << name;
  }
}

TEST(WeightSourceGoldenTest, OpensEveryGoldenModel) {
  for (const char* name :
       {"heads_5_5_untied", "heads_9_3_tied_sharded", "heads_4_2_rope_llama3",
        "heads_6_2_biased_qwen2", "heads_7_gpt2", "tiny_text"}) {
    const auto source =
        WeightSource::Open(absl::StrCat("tests/golden/", name, "/model"));
    EXPECT_TRUE(source.ok()) << source.status();
  }
}

}  // namespace
}  // namespace lorica
