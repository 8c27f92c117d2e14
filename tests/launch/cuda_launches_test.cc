// How many kernels and products a training pass and a step give a GPU, counted
// on the stand-ins, so that one too many shows.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "launch/session.h"
#include "launch/train/trainer.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "model/pass.h"
#include "model/pass_recordings.h"
#include "tests/launch/golden_training.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

const std::vector<std::string> kAllLinear = {"all-linear"};
const std::vector<std::string> kQAndV = {"q_proj", "v_proj"};

struct Case {
  std::vector<std::string> targets = kAllLinear;
  bool in_border = true;       // Of the weights, as a run has its adapter.
  bool own_attention = false;  // Or a library's.
  Recompute recompute = Recompute::kCheap;
  int32_t missing_rows = 0;
  bool biased = false;  // q, k and v.
  int64_t rank = 8;     // Of each adapter.
};

// Of a layer that has others above and below.
struct Launches {
  int64_t forward = 0;
  int64_t backward = 0;
};

// Every row of every matrix begins at a multiple of 16 bytes.
GptConfig ModelOf(int64_t layers) {
  GptConfig config = {.vocab_size = 16,
                      .hidden_size = 32,
                      .num_layers = layers,
                      .num_heads = 2,
                      .num_kv_heads = 1,
                      .head_dim = 16,
                      .intermediate_size = 48,
                      .max_positions = 16};
  config.rope.inv_freq.assign(8, 0.5f);
  CHECK(config.Validate().ok());
  return config;
}

// Two records that fill the rows of a pass but for `missing` of them.
TokenBatch TwoRecords(int32_t missing) {
  TokenBatch batch;
  const int32_t count = 16 - missing;
  for (int32_t i = 0; i < count; ++i) {
    batch.tokens.push_back(i);
    batch.positions.push_back(i % 8);
    batch.targets.push_back(i);
    batch.row_index.push_back(i);
  }
  batch.segments = {{0, 8, 0, 8}, {8, count - 8, 8, count - 8}};
  batch.num_targets = count;
  return batch;
}

Tensor ZeroParam(Device* device, const ParamSpec& spec) {
  const bool norm = spec.shape.rank() == 1;
  return Tensor::Zeros(device, spec.shape, norm ? DType::kF32 : DType::kBF16);
}

// Calls body(session, gpt, adapter) on the only rank.
template <typename Body>
void WithModel(const Case& c, int64_t layers, const Body& body) {
  cuda_fakes::Settings settings = {.policy = cuda_fakes::Policy::kLazyLast};
  if (!c.own_attention) settings.sdpa_workspace_bytes = 1024;
  cuda_fakes::Reset(settings);
  RunRanks(1, [&](std::unique_ptr<Communicator> world) {
    auto gpu = OpenCudaDevice({.allocation = Allocation::kDirect});
    ASSERT_TRUE(gpu.ok()) << gpu.status();
    const auto session =
        Session::Over(*std::move(gpu), std::move(world), Placement{}, {});
    ASSERT_TRUE(session.ok()) << session.status();
    Device* device = (*session)->device();
    Communicator& group = (*session)->mesh().tensor();
    GptConfig config = ModelOf(layers);
    config.qkv_bias = c.biased;
    const auto split = SplitModel(config, group.size());
    ASSERT_TRUE(split.ok()) << split.status();
    const auto modules =
        ResolveTargets(config, *split, {.rank = c.rank, .targets = c.targets});
    ASSERT_TRUE(modules.ok()) << modules.status();
    Adapter adapter(device, DType::kBF16, layers, *modules, 0.0f, 0);
    const Gpt gpt(
        config, *split, kTensorParallel, &group,
        [&](const ParamSpec& spec, const Slice&) {
          return ZeroParam(device, spec);
        },
        c.in_border ? &adapter : nullptr);
    body(**session, gpt, adapter);
  });
}

// Launches from the pass's begin until each layer has its gradients, from the
// last layer to the first.
std::vector<int64_t> CountPass(const Case& c, int64_t layers) {
  std::vector<int64_t> counts;
  WithModel(c, layers,
            [&](const Session& session, const Gpt& gpt, const Adapter& on) {
              const Pass pass =
                  MakeTrainingPass(session.device(), TwoRecords(c.missing_rows),
                                   {0, 2}, Selection::kAll, 1);
              const int64_t before = cuda_fakes::Launches();
              gpt.Train(pass, c.recompute, 1.0f, on, [&](int64_t) {
                counts.push_back(cuda_fakes::Launches() - before);
              });
            });
  return counts;
}

// Launches that a graph of the pass is made of, and a few beside it.
int64_t CountRecording(const Case& c, int64_t layers) {
  int64_t count = 0;
  WithModel(c, layers,
            [&](const Session& session, const Gpt& gpt, const Adapter& on) {
              PassRecordings recordings(gpt, on, c.recompute, session.device(),
                                        1);
              const TrainingRows rows = CollectTrainingRows(
                  TwoRecords(c.missing_rows), {0, 2}, Selection::kAll, 1);
              recordings.Train(rows, 1.0f);
              const int64_t before = cuda_fakes::Launches();
              recordings.Train(rows, 1.0f);
              count = cuda_fakes::Launches() - before;
              EXPECT_EQ(recordings.counts().replayed, 1);
            });
  return count;
}

Launches CountLayer(const Case& c) {
  const std::vector<int64_t> three = CountPass(c, 3);
  const std::vector<int64_t> four = CountPass(c, 4);
  const int64_t backward = three[1] - three[0];
  return {.forward = four.back() - three.back() - backward,
          .backward = backward};
}

// Of the losses of so many records of 16 tokens.
int64_t CountLosses(int64_t records) {
  TokenBatch batch;
  for (int64_t r = 0; r < records; ++r) {
    batch.segments.push_back({16 * r, 16, 16 * r, 16});
    for (int32_t i = 0; i < 16; ++i) {
      batch.tokens.push_back(i);
      batch.positions.push_back(i);
      batch.targets.push_back(i);
      batch.row_index.push_back(16 * r + i);
    }
  }
  int64_t count = 0;
  WithModel({}, 1,
            [&](const Session& session, const Gpt& gpt, const Adapter& on) {
              const int64_t before = cuda_fakes::Launches();
              TokenLosses(batch, gpt, &on, session);
              count = cuda_fakes::Launches() - before;
            });
  return count;
}

// What this program counts.
std::string CountedTable() {
  const std::pair<const char*, Case> cases[] = {
      {"all linear layers | cuDNN's | CHEAP", {}},
      {"the same, but not in the weights' border | cuDNN's | CHEAP",
       {.in_border = false}},
      {"all linear layers | own | CHEAP", {.own_attention = true}},
      {"all linear layers | cuDNN's | NONE", {.recompute = Recompute::kNone}},
      {"all linear layers | cuDNN's | BLOCK", {.recompute = Recompute::kBlock}},
      {"q, v | cuDNN's | CHEAP", {.targets = kQAndV}}};
  std::string table =
      "| adapters on | attention | recompute | forward | backward |\n"
      "|---|---|---|---|---|\n";
  for (const auto& [name, c] : cases) {
    const Launches layer = CountLayer(c);
    absl::StrAppend(&table, "| ", name, " | ", layer.forward, " | ",
                    layer.backward, " |\n");
  }
  return table;
}

// A table that differs is printed whole: put it into the page.
TEST(CudaLaunchesTest, OfALayerAreAsDocumented) {
  const std::string page = ReadBytes("docs/cuda.md");
  const std::string counted = CountedTable();
  EXPECT_NE(page.find("\n\n" + counted), std::string::npos) << counted;
}

// As a batch seldom fills the rows of a pass.
TEST(CudaLaunchesTest, AreNoMoreWhereRowsAreMissing) {
  for (const bool own_attention : {false, true}) {
    EXPECT_EQ(CountPass({.own_attention = own_attention, .missing_rows = 3}, 2),
              CountPass({.own_attention = own_attention}, 2));
  }
}

// More than a CPU's pass has, and its head takes at a time.
TEST(CudaLaunchesTest, AreNoMoreForMoreTokens) {
  EXPECT_EQ(CountLosses(40), CountLosses(2));
}

TEST(CudaLaunchesTest, ABiasTakesNone) {
  EXPECT_EQ(CountPass({.biased = true}, 2), CountPass({}, 2));
}

// Neither one such rank nor the three of q, k and v are a multiple of 16 bytes;
// their border is.
TEST(CudaLaunchesTest, AreNoMoreForOddRanks) {
  for (const int64_t rank : {1, 3, 12}) {
    EXPECT_EQ(CountPass({.rank = rank}, 2), CountPass({}, 2)) << rank;
  }
}

TEST(CudaLaunchesTest, OfALayerAreNoMoreInAGraph) {
  const Case c = {.missing_rows = 3};
  EXPECT_EQ(CountRecording(c, 2) - CountRecording(c, 1),
            CountPass(c, 2).back() - CountPass(c, 1).back());
}

// Of the third step, both passes of which are replayed.
int64_t CountStep() {
  RunConfig config = GoldenRun({}, DType::kBF16);
  config.train.steps = 4;
  config.pass_graphs = 8;
  std::vector<int64_t> counts;
  cuda_fakes::Reset(
      {.policy = cuda_fakes::Policy::kLazyLast, .sdpa_workspace_bytes = 1024});
  TrainGolden(
      [](int) { return *OpenCudaDevice({.allocation = Allocation::kDirect}); },
      config,
      {.folder = "heads_5_5_untied",
       .adapter = "adapter_qv",
       .before_micro_batch = [&] {
         counts.push_back(cuda_fakes::Launches());
       }});
  return counts.size() == 8 ? counts[6] - counts[4] : -1;
}

TEST(CudaLaunchesTest, OfAStepOutsideOfItsPassesAreAsDocumented) {
  const std::string sentence =
      absl::StrCat("Beside two passes a step gives ", CountStep(), ":");
  EXPECT_NE(ReadBytes("docs/cuda.md").find(sentence), std::string::npos)
      << sentence;
}

}  // namespace
}  // namespace lorica
