// The whole model against transformers and PEFT: losses and every adapter
// gradient, on one rank and split over several.
#include <algorithm>
#include <cmath>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "model/peft_adapter.h"
#include "model/weight_source.h"
#include "parallel/grad_sync.h"
#include "parallel/mesh.h"
#include "runtime/check.h"
#include "tests/support/golden.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

struct Case {
  const char* folder;
  const char* adapter;
  int ranks;
  Recompute recompute;
  bool sequence_parallel = false;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.folder << "_" << c.adapter << "_on" << c.ranks << "_"
             << static_cast<int>(c.recompute)
             << (c.sequence_parallel ? "_sequence" : "");
}

class GptGoldenTest : public testing::TestWithParam<Case> {};

// Rounding of F32 through the model: each of the ~8 sums a layer takes over at
// most `width` terms, forward and backward, adds its share.
double RelativeTolerance(const GptConfig& config) {
  const double width = static_cast<double>(
      std::max(config.hidden_size, config.intermediate_size));
  return 0x1p-24 * 16.0 * static_cast<double>(config.num_layers) *
         std::sqrt(width);
}

double LargestOf(const std::vector<float>& values) {
  double largest = 0.0;
  for (const float v : values) largest = std::max<double>(largest, std::abs(v));
  return largest;
}

// A rank's model, its adapter as PEFT's directory has it, and one batch.
class RankRun {
 public:
  RankRun(const Case& c, Communicator* group, Device* device)
      : golden_(c.folder),
        recompute_(c.recompute),
        selection_(c.sequence_parallel ? Selection::kAll
                                       : Selection::kTargets) {
    const auto source = WeightSource::Open(golden_.model_path());
    CHECK(source.ok()) << source.status().message();
    const auto split = SplitModel(source->config(), group->size());
    CHECK(split.ok()) << split.status().message();
    gpt_ = std::make_unique<Gpt>(
        source->config(), *split,
        c.sequence_parallel ? kSequenceParallel : kTensorParallel, group,
        [&](const ParamSpec& spec, const Slice& slice) {
          return source->Load(spec.name, slice, DType::kF32, device);
        });
    const auto peft = ReadPeftAdapter(
        golden_.adapter_path(std::string("adapter_") + c.adapter));
    CHECK(peft.ok()) << peft.status().message();
    const auto modules = ResolveTargets(source->config(), *split, peft->lora);
    CHECK(modules.ok()) << modules.status().message();
    adapter_ = std::make_unique<Adapter>(device, DType::kF32,
                                         source->config().num_layers, *modules,
                                         0.0f, group->rank());
    for (const Factor& factor : adapter_->factors()) {
      const PeftFactors& whole = peft->modules.at(factor.module);
      adapter_->SetValue(
          factor,
          Slice2(factor, factor.kind == Factor::Kind::kA ? whole.a : whole.b));
    }
    adapter_->Refresh();
    device_ = device;
  }

  static std::vector<float> Slice2(const Factor& factor,
                                   const std::vector<float>& whole) {
    std::vector<float> values;
    for (int64_t r = factor.slice.rows.begin; r < factor.slice.rows.end; ++r) {
      for (int64_t c = factor.slice.cols.begin; c < factor.slice.cols.end;
           ++c) {
        values.push_back(whole[static_cast<size_t>(r * factor.shape[1] + c)]);
      }
    }
    return values;
  }

  // Losses by token of the batch; leaves the gradients in the adapter.
  std::vector<double> Train(const TokenBatch& batch) {
    std::vector<double> losses(batch.tokens.size(), 0.0);
    const float scale = 1.0f / static_cast<float>(batch.num_targets);
    for (const RecordRange& records : CutIntoPasses(batch, 24)) {
      std::vector<int64_t> place;
      MakePass(device_, batch, records, selection_, &place);
      const Pass pass =
          MakeTrainingPass(device_, batch, records, selection_, 1);
      const std::vector<double> rows =
          gpt_->Train(pass, recompute_, scale, *adapter_).Read();
      for (size_t i = 0; i < rows.size(); ++i) {
        if (place[i] >= 0) losses[static_cast<size_t>(place[i])] = rows[i];
      }
    }
    return losses;
  }

  const Golden& golden() const { return golden_; }
  const Gpt& gpt() const { return *gpt_; }
  Adapter* adapter() { return adapter_.get(); }

 private:
  Golden golden_;
  Recompute recompute_;
  Selection selection_;
  Device* device_ = nullptr;
  std::unique_ptr<Gpt> gpt_;
  std::unique_ptr<Adapter> adapter_;
};

TEST_P(GptGoldenTest, LossesAndGradientsAreThoseOfPeft) {
  const Case c = GetParam();
  RunRanks(c.ranks, [&](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const auto mesh = Mesh::Create({.tensor = c.ranks}, std::move(world));
    ASSERT_TRUE(mesh.ok()) << mesh.status().message();
    RankRun run(c, &mesh->tensor(), device.get());
    const TokenBatch batch =
        run.golden().micro_batches("batch.safetensors").at(0);
    const std::vector<double> losses = run.Train(batch);
    const double tolerance = RelativeTolerance(run.gpt().config());
    const std::string adapter = c.adapter;
    const std::vector<float> expected =
        run.golden().expected(adapter + ".losses");
    for (size_t i = 0; i < losses.size(); ++i) {
      EXPECT_NEAR(losses[i], expected[i], tolerance * LargestOf(expected)) << i;
    }
    Tensor* grads = run.adapter()->grads();
    std::vector<FlatSlice> slices;
    for (const Factor& factor : run.adapter()->factors()) {
      slices.push_back(
          {factor.shard, {factor.offset, factor.offset + factor.elements}});
    }
    GradSync sync(slices, *grads, 1, *mesh);
    sync.AddMicroBatch();
    sync.Reduce();
    for (const Factor& factor : run.adapter()->factors()) {
      const bool is_a = factor.kind == Factor::Kind::kA;
      const std::string name = adapter + ".grad.base_model.model." +
                               factor.module +
                               (is_a ? ".lora_A.weight" : ".lora_B.weight");
      const std::vector<float> whole = run.golden().expected(name);
      const std::vector<float> want = RankRun::Slice2(factor, whole);
      const std::vector<float> got =
          grads->Cols({factor.offset, factor.offset + factor.elements})
              .ToHost<float>();
      double error = 0.0;
      for (size_t i = 0; i < got.size(); ++i) {
        error = std::max<double>(error, std::abs(got[i] - want[i]));
      }
      EXPECT_LE(error, tolerance * LargestOf(whole)) << name;
    }
  });
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const std::pair<const char*, std::vector<int>> folders[] = {
      {"heads_5_5_untied", {1, 2, 3, 5}},
      {"heads_9_3_tied_sharded", {1, 2, 3, 4, 6}},
      {"heads_4_2_rope_llama3", {1, 2, 3, 4}},
      {"heads_6_2_biased_qwen2", {1, 2, 3, 6}},
      {"heads_7_gpt2", {1, 2, 3, 6}}};
  for (const auto& [folder, ranks] : folders) {
    for (const char* adapter : {"qv", "all"}) {
      for (const int n : ranks) {
        for (const Recompute r :
             {Recompute::kNone, Recompute::kCheap, Recompute::kBlock}) {
          cases.push_back({folder, adapter, n, r});
          if (n > 1) cases.push_back({folder, adapter, n, r, true});
        }
      }
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, GptGoldenTest, testing::ValuesIn(Cases()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace lorica
