// Seconds and bytes of saving and loading an adapter's state, by its size.
//
//   checkpoint_bench [DIRECTORY [TIMES]]
//
// Ranks are threads of this process. `blocked` is how long training stands
// still, `in place` when the save is forced to disk and renamed, medians of
// TIMES saves; `load` reads and verifies it on as many ranks, from the page
// cache. The PEFT directory is not written: it adds a third to the bytes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "launch/state/adapter_state.h"
#include "launch/state/saver.h"
#include "model/adapter.h"
#include "runtime/check.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using Clock = std::chrono::steady_clock;

struct Model {
  const char* name;
  GptConfig config;
};

// The sizes of SmolLM2-135M and of Llama-3.2-1B.
std::vector<Model> Models() {
  std::vector<Model> models = {{"SmolLM2-135M",
                                {.vocab_size = 49152,
                                 .hidden_size = 576,
                                 .num_layers = 30,
                                 .num_heads = 9,
                                 .num_kv_heads = 3,
                                 .head_dim = 64,
                                 .intermediate_size = 1536,
                                 .max_positions = 8192}},
                               {"Llama-3.2-1B",
                                {.vocab_size = 128256,
                                 .hidden_size = 2048,
                                 .num_layers = 16,
                                 .num_heads = 32,
                                 .num_kv_heads = 8,
                                 .head_dim = 64,
                                 .intermediate_size = 8192,
                                 .max_positions = 8192}}};
  for (Model& model : models) model.config.rope.inv_freq.resize(32);
  return models;
}

struct Kind {
  const char* name;
  LoraConfig lora;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Measure(const Model& model, const Kind& kind, int ranks,
             const std::string& directory, int times) {
  RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Device> device = OpenCpuDevice({});
    const auto split = SplitModel(model.config, ranks);
    CHECK(split.ok()) << split.status();
    const auto modules = ResolveTargets(model.config, *split, kind.lora);
    CHECK(modules.ok()) << modules.status();
    Adapter adapter(device.get(), DType::kF32, model.config.num_layers,
                    *modules, 0.0f, world->rank());
    adapter.Initialize(1);
    auto saver =
        Saver::Open({.directory = directory, .keep = 1}, 0, world.get());
    CHECK(saver.ok()) << saver.status();
    std::vector<double> blocked;
    std::vector<double> seconds;
    SaveReport report;
    for (int step = 1; step <= times; ++step) {
      const Clock::time_point since = Clock::now();
      (*saver)->Start({.manifest = {.position = {.step = step},
                                    .mesh = {.tensor = ranks},
                                    .tensors = StateTensorsOf(adapter)},
                       .snapshot = TakeSnapshot(&adapter, world->rank()),
                       .peft = std::nullopt},
                      since);
      blocked.push_back(
          std::chrono::duration<double>(Clock::now() - since).count());
      report = (*saver)->Finish().value();
      CHECK(report.status.ok()) << report.status;
      seconds.push_back(report.seconds);
    }
    world->Barrier();
    const Clock::time_point start = Clock::now();
    auto state = SavedState::Open({ResolveSave(directory)});
    CHECK(state.ok()) << state.status();
    CHECK(LoadState(&*state, &adapter).ok());
    world->Barrier();
    const double load =
        std::chrono::duration<double>(Clock::now() - start).count();
    if (world->rank() != 0) return;
    absl::PrintF(
        "%-13s %-18s %2d ranks %10d parameters %7.1f MB  "
        "blocked %7.1f ms  in place %7.1f ms  load %7.1f ms\n",
        model.name, kind.name, ranks, adapter.total_parameters(),
        static_cast<double>(report.bytes) / 1e6, 1e3 * Median(blocked),
        1e3 * Median(seconds), 1e3 * load);
  });
  std::filesystem::remove_all(directory);
}

void Main(const std::string& directory, int times) {
  const Kind kinds[] = {
      {"rank 8 q,v", {.rank = 8, .targets = {"q_proj", "v_proj"}}},
      {"rank 64 all-linear", {.rank = 64, .targets = {"all-linear"}}}};
  for (const Model& model : Models()) {
    for (const Kind& kind : kinds) {
      for (const int ranks : {1, 2}) {
        Measure(model, kind, ranks, directory, times);
      }
    }
  }
}

}  // namespace
}  // namespace lorica

int main(int argc, char** argv) {
  lorica::Main(argc > 1 ? argv[1] : "checkpoint_bench.tmp",
               argc > 2 ? std::atoi(argv[2]) : 5);
}
