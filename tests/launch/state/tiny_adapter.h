// An adapter without a model, and saves of it.
#ifndef LORICA_TESTS_LAUNCH_STATE_TINY_ADAPTER_H_
#define LORICA_TESTS_LAUNCH_STATE_TINY_ADAPTER_H_

#include <bit>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "launch/state/adapter_state.h"
#include "launch/state/manifest.h"
#include "launch/state/saved_state.h"
#include "model/adapter.h"
#include "runtime/check.h"
#include "runtime/files/atomic_file.h"
#include "tests/support/run_ranks.h"

namespace lorica {

// Six query and three key/value heads: more than three tensor ranks share
// slices.
inline std::unique_ptr<Adapter> TinyAdapter(
    Device* device, int rank, int ranks,
    const std::string& target = "all-linear") {
  GptConfig config = {.vocab_size = 50,
                      .hidden_size = 24,
                      .num_layers = 2,
                      .num_heads = 6,
                      .num_kv_heads = 3,
                      .head_dim = 8,
                      .intermediate_size = 40,
                      .max_positions = 16};
  config.rope.inv_freq.resize(4);
  const LoraConfig lora = {.rank = 3, .targets = {target}};
  const auto split = SplitModel(config, ranks);
  CHECK(split.ok()) << split.status();
  return std::make_unique<Adapter>(device, DType::kF32, config.num_layers,
                                   *ResolveTargets(config, *split, lora), 0.0f,
                                   rank);
}

// Values and moments that are functions of `seed` and of their place in the
// whole tensors.
inline void Fill(int seed, Adapter* adapter) {
  int part = 0;
  for (Tensor* flat : {adapter->values(), adapter->first_moments(),
                       adapter->second_moments()}) {
    ++part;
    for (const Factor& f : adapter->factors()) {
      const float base =
          static_cast<float>(std::hash<std::string>()(f.module) % 1000 +
                             100 * static_cast<int>(f.kind) + 7 * part + seed);
      std::vector<float> values;
      for (int64_t r = f.slice.rows.begin; r < f.slice.rows.end; ++r) {
        for (int64_t c = f.slice.cols.begin; c < f.slice.cols.end; ++c) {
          values.push_back(base + 0.37f * static_cast<float>(r) +
                           0.011f * static_cast<float>(c));
        }
      }
      if (values.empty()) continue;
      flat->Cols({f.offset, f.offset + f.elements}).CopyFrom(values.data());
    }
  }
}

inline Manifest TinyManifest(const Adapter& adapter, int64_t step, int ranks) {
  return {.position = {.step = step,
                       .skipped_batches = 2,
                       .anomalies = 1,
                       .recent_losses = {0.1, 2.0 / 3.0},
                       .recent_grad_norms = {1e-300, 1.0}},
          .mesh = {.data = 1, .tensor = ranks},
          .config = {{"train.seed", "1"}, {"data.train", "t.jsonl"}},
          .data_checksum = "d",
          .tensors = StateTensorsOf(adapter)};
}

// Writes a save of TinyAdapters on `ranks` tensor ranks without a Saver.
inline void WriteTinySave(const std::string& save, int ranks, int seed,
                          const std::string& target = "all-linear") {
  const std::unique_ptr<Device> device = OpenTestDevice();
  std::filesystem::create_directories(save + "/" + kStateFolder);
  Manifest manifest;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto adapter = TinyAdapter(device.get(), rank, ranks, target);
    Fill(seed, adapter.get());
    if (rank == 0) manifest = TinyManifest(*adapter, 5, ranks);
    auto shard = WriteShard(TakeSnapshot(adapter.get(), rank),
                            save + "/" + kStateFolder, ShardName(rank, ranks));
    CHECK(shard.ok()) << shard.status();
    if (!shard->pieces.empty()) manifest.shards.push_back(*std::move(shard));
  }
  CHECK(WriteFileAtomically(ManifestPath(save), ToText(manifest)).ok());
}

// Every logical tensor of a save, bit by bit.
using Bits = std::map<std::string, std::vector<uint32_t>>;
inline absl::StatusOr<Bits> BitsOf(const std::vector<std::string>& saves) {
  auto state = SavedState::Open(saves);
  if (!state.ok()) return state.status();
  const absl::Status whole = state->Verify();
  if (!whole.ok()) return whole;
  Bits bits;
  for (const auto& [name, shape] : state->manifest().tensors) {
    std::vector<float> values(static_cast<size_t>(shape.elements()));
    const absl::Status read = state->Read(name, {{0, shape[0]}, {0, shape[1]}},
                                          absl::MakeSpan(values));
    if (!read.ok()) return read;
    for (const float value : values) {
      bits[name].push_back(std::bit_cast<uint32_t>(value));
    }
  }
  return bits;
}

}  // namespace lorica

#endif  // LORICA_TESTS_LAUNCH_STATE_TINY_ADAPTER_H_
