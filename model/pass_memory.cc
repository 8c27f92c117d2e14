#include "model/pass_memory.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lorica {

namespace {

// A record of so many tokens, the first of which have no target.
TokenBatch RecordOf(int64_t tokens, int64_t without_target) {
  TokenBatch batch;
  const auto count = static_cast<size_t>(tokens);
  batch.tokens.resize(count);
  batch.positions.resize(count);
  batch.targets.resize(count);
  std::fill_n(batch.targets.begin(), without_target, -1);
  batch.row_index.resize(count);
  std::iota(batch.row_index.begin(), batch.row_index.end(), 0);
  batch.segments = {{.num_queries = tokens, .num_keys = tokens}};
  batch.num_targets = tokens - without_target;
  return batch;
}

}  // namespace

// What the pass is made of is no part of the plan, nor are the losses.
MemoryPlan PlanPass(const Gpt& gpt, const Adapter& adapter, Recompute recompute,
                    const TrainingRows& rows, Device* device) {
  const DryRun others(device);
  const Pass pass = MakeTrainingPass(device, rows);
  RowLosses losses(device, rows.targets);
  const DryRun run(device);
  gpt.Train(pass, recompute, 1.0f, adapter, nullptr, &losses);
  return run.taken();
}

MemoryPlan PlanPassesUpTo(int64_t tokens, const Gpt& gpt,
                          const Adapter& adapter, Recompute recompute,
                          Device* device) {
  constexpr int64_t kParts = 16;
  MemoryPlan most;
  for (int64_t part = 0; part < kParts; ++part) {
    const TokenBatch record = RecordOf(tokens, tokens * part / kParts);
    const MemoryPlan plan = PlanPass(
        gpt, adapter, recompute,
        CollectTrainingRows(record, {0, 1}, gpt.selection(), 0), device);
    most = {.ops = std::max(most.ops, plan.ops),
            .pass = std::max(most.pass, plan.pass),
            .places = Mixed(most.places, plan.places)};
    if (gpt.selection() == Selection::kAll) break;
  }
  return most;
}

bool AllPlanAlike(const std::vector<MemoryPlan>& plans, Communicator& group) {
  std::string mine;
  for (const MemoryPlan& plan : plans) {
    absl::StrAppend(&mine, plan.ops, " ", plan.pass, " ", plan.places, ",");
  }
  const std::vector<std::string> all =
      group.AllGatherBytes(mine, Purpose::kControl);
  return std::all_of(all.begin(), all.end(),
                     [&](const std::string& other) { return other == mine; });
}

std::unique_ptr<PassMemory> PassMemory::Take(const MemoryPlan& plan,
                                             Device* device,
                                             Communicator* group) {
  static_assert(Allocator::kAlignment % sizeof(float) == 0);
  Tensor registered;
  if (group != nullptr) {
    registered = group->CollectiveMemory(
        device, static_cast<int64_t>(plan.bytes() / sizeof(float)));
  }
  void* block = registered.present()
                    ? registered.data()
                    : device->backend().allocate(device->queue(), plan.bytes());
  if (block == nullptr) return nullptr;
  return std::unique_ptr<PassMemory>(
      new PassMemory(plan, device, std::move(registered), block));
}

PassMemory::PassMemory(const MemoryPlan& plan, Device* device,
                       Tensor registered, void* block)
    : device_(device),
      registered_(std::move(registered)),
      block_(block),
      bytes_(plan.bytes()),
      allocator_(std::make_unique<Allocator>(
          &device->backend(), device->queue(), Allocation::kPool)) {
  char* const begin = static_cast<char*>(block);
  allocator_->Reserve(Lifetime::kPass, begin, plan.pass);
  allocator_->Reserve(Lifetime::kOps, begin + plan.pass, plan.ops);
}

PassMemory::~PassMemory() {
  allocator_ = nullptr;
  if (registered_.present()) return;
  device_->backend().release(device_->queue(), block_, bytes_);
}

}  // namespace lorica
