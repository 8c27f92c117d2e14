// What passes take for activations, as planned and as they run, on CPUs and on
// the stand-ins for CUDA and NCCL.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "launch/session.h"
#include "launch/train/pass_planning.h"
#include "model/pass_memory.h"
#include "model/pass_recordings.h"
#include "runtime/check.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

enum class Kind : uint8_t { kCpu, kGpu };

struct Case {
  Kind kind = Kind::kGpu;
  MeshConfig mesh;
  Recompute recompute = Recompute::kCheap;
  float dropout = 0.0f;
  DType dtype = DType::kF32;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  constexpr const char* kRecompute[] = {"None", "Cheap", "Block"};
  return out << (c.kind == Kind::kCpu ? "Cpu" : "Gpu") << "Tensor"
             << c.mesh.tensor << (c.mesh.tensor_sequence ? "Sequence" : "")
             << kRecompute[static_cast<size_t>(c.recompute)]
             << (c.dropout > 0.0f ? "Dropout" : "")
             << (c.dtype == DType::kBF16 ? "Bf16" : "");
}

// Uneven over two and four ranks, even over three.
GptConfig UnevenModel() {
  GptConfig config = {.vocab_size = 75,
                      .hidden_size = 48,
                      .num_layers = 2,
                      .num_heads = 9,
                      .num_kv_heads = 3,
                      .head_dim = 8,
                      .intermediate_size = 42,
                      .max_positions = 64};
  config.rope.inv_freq.assign(4, 0.5f);
  CHECK(config.Validate().ok());
  return config;
}

// A model of zeros and its adapter on one rank.
struct Model {
  Model(const Case& c, const Session& session) {
    Device* device = session.device();
    Communicator& group = session.mesh().tensor();
    const GptConfig config = UnevenModel();
    const auto split = SplitModel(config, group.size());
    CHECK(split.ok()) << split.status();
    const auto modules =
        ResolveTargets(config, *split, {.rank = 3, .targets = {"all-linear"}});
    CHECK(modules.ok()) << modules.status();
    adapter = std::make_unique<Adapter>(device, c.dtype, config.num_layers,
                                        *modules, c.dropout, group.rank());
    const auto load = [&](const ParamSpec& spec, const Slice& slice) {
      const bool norm = spec.shape.rank() == 1;
      const Shape shape = norm ? Shape{slice.cols.size()}
                               : Shape{slice.rows.size(), slice.cols.size()};
      return Tensor::Zeros(device, shape, norm ? DType::kF32 : c.dtype);
    };
    gpt = std::make_unique<Gpt>(
        config, *split,
        c.mesh.tensor_sequence ? kSequenceParallel : kTensorParallel, &group,
        load, adapter.get());
  }

  std::unique_ptr<Adapter> adapter;
  std::unique_ptr<Gpt> gpt;
};

// Records of so many tokens, the last `targets` of each with a target.
TokenBatch Records(const std::vector<int32_t>& lengths, int32_t targets) {
  TokenBatch batch;
  for (const int32_t length : lengths) {
    batch.segments.push_back({.first_query = std::ssize(batch.tokens),
                              .num_queries = length,
                              .first_key = std::ssize(batch.tokens),
                              .num_keys = length});
    for (int32_t i = 0; i < length; ++i) {
      batch.row_index.push_back(std::ssize(batch.tokens));
      batch.tokens.push_back(i % 7);
      batch.positions.push_back(i);
      batch.targets.push_back(i + targets >= length ? i % 11 : -1);
      batch.num_targets += batch.targets.back() >= 0 ? 1 : 0;
    }
  }
  return batch;
}

// Calls body(session) on each rank, with devices of the case's kind whose head
// takes a few rows at a time.
template <typename Body>
void OnRanks(const Case& c, const Body& body) {
  RunRanks(c.mesh.data * c.mesh.tensor, [&](std::unique_ptr<Communicator> all) {
    std::unique_ptr<Device> device;
    if (c.kind == Kind::kCpu) {
      device = OpenCpuDevice({.allocation = Allocation::kDirect});
    } else {
      auto gpu = OpenCudaDevice(
          {.index = all->rank(), .allocation = Allocation::kDirect});
      ASSERT_TRUE(gpu.ok()) << gpu.status();
      device = *std::move(gpu);
    }
    Backend few_rows = device->backend();
    few_rows.loss_rows = 16;
    device->Interpose(&few_rows);
    const auto session =
        Session::Over(std::move(device), std::move(all), Placement{}, c.mesh);
    ASSERT_TRUE(session.ok()) << session.status();
    body(**session);
  });
}

std::array<Traffic, kNumPurposes> TrafficOf(const Communicator& group) {
  std::array<Traffic, kNumPurposes> traffic;
  for (size_t i = 0; i < traffic.size(); ++i) {
    traffic[i] = group.traffic(static_cast<Purpose>(i));
  }
  return traffic;
}

// What the pass takes as it runs, of more memory than it was planned to.
MemoryPlan Measure(const Case& c, const Model& model, const TrainingRows& rows,
                   size_t reserved, Device* device) {
  Queue* queue = device->queue();
  const Backend& backend = device->backend();
  const Pass pass = MakeTrainingPass(device, rows);
  RowLosses losses(device, rows.targets);
  MemoryPlan taken;
  std::vector<void*> blocks;
  {
    Allocator memory(&backend, queue, Allocation::kPool);
    for (const Lifetime lifetime : {Lifetime::kOps, Lifetime::kPass}) {
      blocks.push_back(backend.allocate(queue, reserved));
      memory.Reserve(lifetime, blocks.back(), reserved);
    }
    const Device::Scope scope(device, &memory);
    model.gpt->Train(pass, c.recompute, 1.0f, *model.adapter, nullptr, &losses);
    EXPECT_EQ(memory.slab_bytes(), 0u);
    EXPECT_EQ(memory.bytes_in_use(), 0u);
    taken = {.ops = memory.reserve_used(Lifetime::kOps),
             .pass = memory.reserve_used(Lifetime::kPass)};
  }
  for (void* block : blocks) backend.release(queue, block, reserved);
  return taken;
}

void ExpectNothingWrongAndNothingLeft() {
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
}

class PassMemoryTest : public testing::TestWithParam<Case> {};

// All rows go on after the last attention, or few do.
TEST_P(PassMemoryTest, APlanIsWhatThePassTakesToTheByte) {
  const Case& c = GetParam();
  cuda_fakes::Reset({.policy = Policy::kEager});
  OnRanks(c, [&](const Session& session) {
    Device* device = session.device();
    const Model model(c, session);
    Communicator& group = session.mesh().tensor();
    const std::vector<TokenBatch> batches = {Records({13, 1, 7}, 13),
                                             Records({30, 17}, 4)};
    for (const TokenBatch& batch : batches) {
      const TrainingRows rows = CollectTrainingRows(
          batch, {0, std::ssize(batch.segments)}, model.gpt->selection(), 1);
      const auto traffic = TrafficOf(group);
      const size_t in_use = device->allocator().bytes_in_use();
      const auto plan = [&] {
        return PlanPass(*model.gpt, *model.adapter, c.recompute, rows, device);
      };
      const MemoryPlan planned = plan();
      if (group.rank() == 0) {
        EXPECT_EQ(plan(), planned) << "the others would not answer";
      }
      EXPECT_EQ(TrafficOf(group), traffic);
      EXPECT_EQ(device->allocator().bytes_in_use(), in_use);
      const MemoryPlan taken =
          Measure(c, model, rows, 2 * planned.bytes(), device);
      EXPECT_GT(taken.ops, 0u);
      EXPECT_GT(taken.pass, 0u);
      EXPECT_EQ(planned.ops, taken.ops) << batch.num_targets;
      EXPECT_EQ(planned.pass, taken.pass) << batch.num_targets;
    }
  });
  ExpectNothingWrongAndNothingLeft();
}

Case CaseOf(Kind kind, int tensor, bool sequence, Recompute recompute) {
  Case c = {.kind = kind, .recompute = recompute};
  c.mesh.tensor = tensor;
  c.mesh.tensor_sequence = sequence;
  if (recompute == Recompute::kCheap) c.dropout = 0.2f;
  if (recompute == Recompute::kBlock) c.dtype = DType::kBF16;
  return c;
}

// The simulator is slow.
std::vector<Case> Cases() {
  using enum Recompute;
  std::vector<Case> cases;
  for (const Recompute recompute : {kNone, kCheap, kBlock}) {
    for (int tensor = 1; tensor <= 4; ++tensor) {
      cases.push_back(CaseOf(Kind::kCpu, tensor, false, recompute));
      if (tensor == 1) continue;
      cases.push_back(CaseOf(Kind::kCpu, tensor, true, recompute));
    }
    cases.push_back(CaseOf(Kind::kGpu, 1, false, recompute));
  }
  cases.push_back(CaseOf(Kind::kGpu, 2, false, kCheap));
  cases.push_back(CaseOf(Kind::kGpu, 2, true, kBlock));
  cases.push_back(CaseOf(Kind::kGpu, 3, true, kNone));
  cases.push_back(CaseOf(Kind::kGpu, 4, false, kCheap));
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, PassMemoryTest, testing::ValuesIn(Cases()),
                         testing::PrintToStringParamName());

// A record of so many tokens.
Dataset DataOf(int64_t tokens) {
  Dataset data;
  data.records.push_back({.tokens = std::vector<int32_t>(tokens, 1),
                          .is_target = std::vector<uint8_t>(tokens, 1)});
  return data;
}

// Takes a GPU's memory but for `left` bytes, as long as it lives.
class Ballast {
 public:
  Ballast(Device* device, size_t left)
      : device_(device),
        bytes_(static_cast<size_t>(
                   device->backend().free_memory(device->queue())) -
               left),
        data_(device->backend().allocate(device->queue(), bytes_)) {
    CHECK(data_ != nullptr);
  }
  ~Ballast() {
    device_->backend().release(device_->queue(), data_, bytes_);
    device_->Synchronize();
  }
  Ballast(const Ballast&) = delete;
  Ballast& operator=(const Ballast&) = delete;

 private:
  Device* device_;
  size_t bytes_;
  void* data_;
};

RunConfig EightRows(const MeshConfig& mesh) {
  RunConfig config;
  config.mesh = mesh;
  config.train.micro_batch = 8;
  config.train.global_batch = 16;
  config.data.sequence_length = 64;
  return config;
}

TEST(PassPlanningTest, WhatWouldFitIsNamed) {
  cuda_fakes::Reset({.memory_bytes = size_t{8} << 20});
  OnRanks({}, [](const Session& session) {
    Device* device = session.device();
    const Model model({}, session);
    RunConfig config = EightRows({});
    const auto error = [&](size_t left) {
      device->Synchronize();
      const Ballast ballast(device, left);
      const auto planned =
          PlanPasses(config, DataOf(64), session, *model.gpt, *model.adapter);
      return std::string(planned.status().message());
    };
    const auto bytes = [&](int64_t tokens, Recompute recompute) {
      return PlanPassesUpTo(tokens, *model.gpt, *model.adapter, recompute,
                            device)
          .bytes();
    };
    const size_t eight = bytes(512, config.recompute);
    const size_t four = bytes(256, config.recompute);
    const size_t block = bytes(512, Recompute::kBlock);
    EXPECT_EQ(error(eight), "");
    EXPECT_THAT(error(eight - 64),
                HasSubstr("set train.micro_batch to 4, with which it takes"));
    EXPECT_THAT(error(block), HasSubstr("or set recompute to BLOCK, with"));
    EXPECT_THAT(error(four - 64),
                HasSubstr("a pass of 512 tokens takes 3.7 MB for activations"));
    EXPECT_THAT(error(four - 64), HasSubstr("set train.micro_batch to 2, "));
    EXPECT_THAT(error(64), HasSubstr("raise mesh.tensor"));
  });
  ExpectNothingWrongAndNothingLeft();
}

void* NoMemory(Queue*, size_t) { return nullptr; }

TEST(PassPlanningTest, ARankThatLacksMemoryStopsAll) {
  const Case c = {.mesh = {.data = 2, .tensor = 2}};
  cuda_fakes::Reset({.nccl_registering_ranks = 0});
  OnRanks(c, [&](const Session& session) {
    Device* device = session.device();
    const Model model(c, session);
    const Backend* whole = &device->backend();
    Backend poor = *whole;
    poor.allocate = NoMemory;
    if (session.mesh().world().rank() == 2) device->Interpose(&poor);
    const auto planned = PlanPasses(EightRows(c.mesh), DataOf(64), session,
                                    *model.gpt, *model.adapter);
    device->Interpose(whole);
    EXPECT_EQ(planned.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(
        std::string(planned.status().message()),
        AllOf(StartsWith("rank 2: train.micro_batch is 8: a pass of 512 tok"),
              HasSubstr("left, in pieces; set train.micro_batch to 4, ")));
    device->Synchronize();
  });
  ExpectNothingWrongAndNothingLeft();
}

// NCCL must find what it is given at the same place on all ranks.
TEST(PassPlanningTest, MemoryIsRegisteredWhereRanksPlanAlike) {
  for (const int tensor : {1, 2, 3}) {
    for (const bool sequence : {false, true}) {
      const Case c = {.mesh = {.tensor = tensor, .tensor_sequence = sequence}};
      cuda_fakes::Reset({});
      OnRanks(c, [&](const Session& session) {
        const Model model(c, session);
        const auto planned = PlanPasses(EightRows(c.mesh), DataOf(64), session,
                                        *model.gpt, *model.adapter);
        ASSERT_TRUE(planned.ok()) << planned.status();
        // Nine heads in groups of three; but rows by sixteen.
        EXPECT_EQ(planned->memory->registered(), tensor == 3 && !sequence);
        EXPECT_THAT(planned->note, StartsWith("a pass of up to 512 tokens "));
      });
      ExpectNothingWrongAndNothingLeft();
    }
  }
}

// All that the ranks tell each other in a pass, without a graph and in one. One
// rank that registers nothing has none register.
TEST(PassPlanningTest, CollectivesOfPassesAreInRegisteredMemory) {
  const Case c = {.mesh = {.tensor = 3}};
  for (const auto& [registering, recorded] :
       {std::pair(3, false), std::pair(3, true), std::pair(1, false)}) {
    cuda_fakes::Reset(
        {.policy = Policy::kLazyLast, .nccl_registering_ranks = registering});
    int64_t calls = 0;
    OnRanks(c, [&, all = registering == 3,
                graph = recorded](const Session& session) {
      Device* device = session.device();
      const Model model(c, session);
      Communicator& group = session.mesh().tensor();
      const auto planned = PlanPasses(EightRows(c.mesh), DataOf(64), session,
                                      *model.gpt, *model.adapter);
      ASSERT_TRUE(planned.ok()) << planned.status();
      EXPECT_EQ(planned->memory->registered(), all);
      const TokenBatch batch = Records({29}, 29);
      const TrainingRows rows =
          CollectTrainingRows(batch, {0, 1}, model.gpt->selection(), 1);
      group.ResetTraffic();
      if (graph) {
        PassRecordings passes(*model.gpt, *model.adapter, Recompute::kCheap,
                              device, 1, planned->memory->allocator());
        for (int pass = 0; pass < 3; ++pass) passes.Train(rows, 1.0f);
        EXPECT_EQ(passes.counts().replayed, 2);
        device->Synchronize();
      } else {
        const Pass pass = MakeTrainingPass(device, rows);
        RowLosses losses(device, rows.targets);
        const ActivationScope scope(device, planned->memory->allocator());
        model.gpt->Train(pass, Recompute::kCheap, 1.0f, *model.adapter, nullptr,
                         &losses);
      }
      EXPECT_EQ(planned->memory->allocator()->slab_bytes(), 0u);
      if (group.rank() != 0) return;
      for (const Traffic& traffic : TrafficOf(group)) calls += traffic.calls;
    });
    EXPECT_GT(calls, 0);
    EXPECT_EQ(cuda_fakes::RegisteredCalls(), registering == 3 ? 3 * calls : 0);
    ExpectNothingWrongAndNothingLeft();
  }
}

}  // namespace
}  // namespace lorica
