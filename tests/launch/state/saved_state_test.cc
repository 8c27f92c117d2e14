#include "launch/state/saved_state.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launch/state/gather_state.h"
#include "runtime/files/checksum.h"
#include "tests/launch/state/tiny_adapter.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr char kTensor[] =
    "model.layers.1.self_attn.k_proj.lora_b.first_moment";

// Rewrites the manifest of a save with a checksum that is right.
void Edit(const std::string& save, const std::function<void(Manifest*)>& edit) {
  const std::string path = ManifestPath(save);
  auto manifest = ParseManifest(ReadBytes(path), path);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  edit(&*manifest);
  WriteBytes(path, ToText(*manifest));
}

std::string ErrorOf(const std::string& save) {
  const auto bits = BitsOf({save});
  return bits.ok() ? "no error" : std::string(bits.status().message());
}

TEST(ManifestTest, ComesBackAsItWas) {
  const TempDirectory directory;
  WriteTinySave(directory / "save", 3, 1);
  const std::string text = ReadBytes(ManifestPath(directory / "save"));
  const auto manifest = ParseManifest(text, "manifest");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(ToText(*manifest), text);
  EXPECT_EQ(manifest->position.recent_losses[1], 2.0 / 3.0);
  EXPECT_EQ(manifest->position.recent_grad_norms[0], 1e-300);
}

// What the format is must not change unnoticed: saves outlive programs.
TEST(ManifestTest, TheTextIsAsDocumented) {
  const Manifest manifest = {
      .position = {.step = 50},
      .mesh = {.data = 2, .tensor = 1},
      .config = {{"train.seed", "1"}},
      .data_checksum = "77",
      .tensors = {{"m.lora_a.value", {1, 2}}},
      .shards = {{.file = "shard-0-of-1.safetensors",
                  .bytes = 100,
                  .header_checksum = "ab",
                  .pieces = {{.tensor = "m.lora_a.value",
                              .slice = {{0, 1}, {0, 2}},
                              .checksum = "cd"}}}},
      .files = {{.file = "adapter_config.json", .bytes = 3, .checksum = "ef"}}};
  const std::string text = ToText(manifest);
  EXPECT_EQ(
      text.substr(text.find("\",") + 2),
      R"("config":{"train.seed":"1"},"data_checksum":"77",)"
      R"("files":[{"bytes":3,"checksum":"ef","file":"adapter_config.json"}],)"
      R"("format":"lorica-state","mesh":{"data":2,"tensor":1,)"
      R"("tensor_sequence":false},"position":{"anomalies":0,)"
      R"("recent_grad_norms":[],"recent_losses":[],"skipped_batches":0,)"
      R"("step":50},"shards":[{"bytes":100,"file":"shard-0-of-1.safetensors",)"
      R"("header":"ab","pieces":[{"checksum":"cd","cols":[0,2],"rows":[0,1],)"
      R"("tensor":"m.lora_a.value"}]}],"tensors":{"m.lora_a.value":[1,2]},)"
      R"("version":1})"
      "\n");
  EXPECT_EQ(manifest.shards[0].pieces[0].NameInShard(),
            "m.lora_a.value[0:1,0:2]");
}

TEST(SavedStateTest, IsTheSameWhateverMeshWroteIt) {
  const TempDirectory directory;
  WriteTinySave(directory / "one", 1, 1);
  const auto one = BitsOf({directory / "one"});
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->size(), 2u * 7 * 2 * 3);
  for (const int ranks : {2, 3, 5}) {
    const std::string save = directory / std::to_string(ranks);
    WriteTinySave(save, ranks, 1);
    const auto other = BitsOf({save});
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ(*other, *one) << ranks;
  }
}

TEST(SavedStateTest, EveryRankOfAnyMeshFindsItsSlices) {
  const TempDirectory directory;
  WriteTinySave(directory / "save", 3, 4);
  const std::unique_ptr<Device> device = OpenTestDevice();
  for (const int ranks : {1, 2, 3, 5}) {
    for (int rank = 0; rank < ranks; ++rank) {
      const auto expected = TinyAdapter(device.get(), rank, ranks);
      Fill(4, expected.get());
      const auto adapter = TinyAdapter(device.get(), rank, ranks);
      auto state = SavedState::Open({directory / "save"});
      ASSERT_TRUE(state.ok()) << state.status();
      const absl::Status loaded = LoadState(&*state, adapter.get());
      ASSERT_TRUE(loaded.ok()) << loaded;
      EXPECT_EQ(adapter->values()->ToHost<float>(),
                expected->values()->ToHost<float>());
      EXPECT_EQ(adapter->first_moments()->ToHost<float>(),
                expected->first_moments()->ToHost<float>());
      EXPECT_EQ(adapter->second_moments()->ToHost<float>(),
                expected->second_moments()->ToHost<float>());
    }
  }
}

TEST(SavedStateTest, OnlyTheShardsThatHoldASliceAreNeeded) {
  const TempDirectory directory;
  WriteTinySave(directory / "save", 3, 1);
  fs::remove(directory / "save/state/shard-1-of-3.safetensors");
  auto state = SavedState::Open({directory / "save"});
  ASSERT_TRUE(state.ok()) << state.status();
  std::vector<float> values(8 * 3);
  // Key/value head 0 lies with rank 0, head 1 with rank 1.
  EXPECT_TRUE(
      state->Read(kTensor, {{0, 8}, {0, 3}}, absl::MakeSpan(values)).ok());
  const absl::Status status =
      state->Read(kTensor, {{8, 16}, {0, 3}}, absl::MakeSpan(values));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("state/shard-1-of-3.safetensors"));
  EXPECT_THAT(status.message(), HasSubstr(directory / "save"));
  EXPECT_THAT(status.message(), HasSubstr(kTensor));
}

TEST(SavedStateTest, ShardsOfSeveralHostsAreFoundWhereTheyAre) {
  const TempDirectory directory;
  WriteTinySave(directory / "a", 2, 1);
  const auto whole = BitsOf({directory / "a"});
  fs::create_directories(directory / "b/state");
  fs::rename(directory / "a/state/shard-1-of-2.safetensors",
             directory / "b/state/shard-1-of-2.safetensors");
  const auto parts = BitsOf({directory / "a", directory / "b"});
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(*parts, *whole);
  WriteTinySave(directory / "c", 2, 9);
  EXPECT_THAT(BitsOf({directory / "a", directory / "c"}).status().message(),
              HasSubstr("not parts of one save"));
}

TEST(GatherStateTest, MakesOneFileOfTheSameTensors) {
  const TempDirectory directory;
  WriteTinySave(directory / "save", 3, 1);
  WriteBytes(directory / "save/adapter_config.json", "{}");
  Edit(directory / "save", [](Manifest* manifest) {
    manifest->files = {{.file = "adapter_config.json",
                        .bytes = 2,
                        .checksum = "99aa06d3014798d86001c324468d497f"}};
  });
  const absl::Status status =
      GatherState({directory / "save"}, directory / "out");
  // The checksum of nothing is not that of "{}".
  EXPECT_THAT(status.message(), HasSubstr("adapter_config.json"));
  EXPECT_FALSE(fs::exists(directory / "out"));
  Edit(directory / "save", [](Manifest* manifest) { manifest->files.clear(); });
  ASSERT_TRUE(GatherState({directory / "save"}, directory / "out").ok());
  EXPECT_EQ(*BitsOf({directory / "out"}), *BitsOf({directory / "save"}));
  EXPECT_TRUE(fs::exists(directory / "out/state/shard-0-of-1.safetensors"));
  EXPECT_FALSE(fs::exists(directory / "out/state/shard-0-of-3.safetensors"));
}

TEST(SavedStateTest, AThousandCutsAndFlippedBitsAreAllSeen) {
  const TempDirectory directory;
  const std::string save = directory / "save";
  WriteTinySave(save, 2, 1, "k_proj");
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(save + "/state")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  ASSERT_EQ(files.size(), 3u);
  ASSERT_EQ(ErrorOf(save), "no error");
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto adapter = TinyAdapter(device.get(), 0, 1, "k_proj");
  std::mt19937 random(1);
  for (int round = 0; round < 1000; ++round) {
    const std::string& file = files[random() % files.size()];
    const std::string bytes = ReadBytes(file);
    std::string damaged = bytes;
    const size_t place = random() % bytes.size();
    if (round % 2 == 0) {
      damaged.resize(place);
    } else {
      damaged[place] = static_cast<char>(damaged[place] ^ (1 << random() % 8));
    }
    WriteBytes(file, damaged);
    auto state = SavedState::Open({save});
    const absl::Status status =
        state.ok() ? LoadState(&*state, adapter.get()) : state.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss)
        << file << " at " << place << ": " << status;
    EXPECT_THAT(status.message(), HasSubstr(file));
    WriteBytes(file, bytes);
  }
  EXPECT_EQ(ErrorOf(save), "no error");
}

struct WrongManifest {
  const char* name;
  std::function<void(Manifest*)> edit;
  const char* message;
};
std::ostream& operator<<(std::ostream& out, const WrongManifest& wrong) {
  return out << wrong.name;
}

class WrongManifestTest : public testing::TestWithParam<WrongManifest> {};

TEST_P(WrongManifestTest, IsRefusedByName) {
  const TempDirectory directory;
  WriteTinySave(directory / "save", 3, 1);
  Edit(directory / "save", GetParam().edit);
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto adapter = TinyAdapter(device.get(), 0, 1);
  auto state = SavedState::Open({directory / "save"});
  const absl::Status status =
      state.ok() ? LoadState(&*state, adapter.get()) : state.status();
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
  EXPECT_THAT(status.message(), HasSubstr(directory / "save"));
}

INSTANTIATE_TEST_SUITE_P(
    SavedStateTest, WrongManifestTest,
    testing::Values(
        WrongManifest{"AHole",
                      [](Manifest* m) {
                        auto& pieces = m->shards[0].pieces;
                        std::erase_if(pieces, [](const Piece& piece) {
                          return piece.tensor == kTensor;
                        });
                      },
                      "the shards hold 48 elements of "
                      "model.layers.1.self_attn.k_proj.lora_b.first_moment"},
        WrongManifest{"AnOverlap",
                      [](Manifest* m) {
                        m->shards[1].pieces.push_back(m->shards[0].pieces[0]);
                      },
                      "overlaps"},
        WrongManifest{
            "OutOfTheTensor",
            [](Manifest* m) { m->shards[0].pieces[0].slice.rows.end += 100; },
            "is outside of the tensor"},
        WrongManifest{"AMissingTensor",
                      [](Manifest* m) {
                        m->tensors.erase(kTensor);
                        for (Shard& shard : m->shards) {
                          std::erase_if(shard.pieces, [](const Piece& piece) {
                            return piece.tensor == kTensor;
                          });
                        }
                      },
                      "k_proj.lora_b.first_moment is missing"},
        WrongManifest{"AnExtraTensor",
                      [](Manifest* m) {
                        m->tensors["other"] = {1, 1};
                        m->shards[0].pieces.push_back(
                            {.tensor = "other", .slice = {{0, 1}, {0, 1}}});
                      },
                      "tensor other is none of the adapter's"},
        WrongManifest{"AnotherShape",
                      [](Manifest* m) {
                        m->tensors[kTensor] = {24, 4};
                        m->shards[0].pieces.push_back(
                            {.tensor = kTensor, .slice = {{0, 24}, {3, 4}}});
                      },
                      "k_proj.lora_b.first_moment is [24, 4]; the adapter's is "
                      "[24, 3]"},
        WrongManifest{"AnUnknownPiece",
                      [](Manifest* m) {
                        m->shards[0].pieces.push_back({.tensor = "other"});
                      },
                      "holds other, which is not among the tensors"},
        WrongManifest{"AWayOut",
                      [](Manifest* m) { m->shards[0].file = "../../x"; },
                      "\"../../x\" is no file name"}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(ManifestTest, AnotherVersionIsRefused) {
  std::string rest = ToText({});
  rest.erase(0, rest.find("\",\"config"));
  const size_t at = rest.find("\"version\":1");
  ASSERT_NE(at, std::string::npos);
  rest.replace(at, 11, "\"version\":2");
  EXPECT_THAT(
      ParseManifest("{\"checksum\":\"" + Checksum(rest) + rest, "m.json")
          .status()
          .message(),
      HasSubstr("m.json: version 2 of the format; this program reads "
                "version 1"));
}

}  // namespace
}  // namespace lorica
