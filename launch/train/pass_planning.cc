#include "launch/train/pass_planning.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

std::string Amount(int64_t bytes) {
  const double amount = static_cast<double>(bytes);
  return amount < 1e9 ? absl::StrFormat("%.1f MB", amount * 1e-6)
                      : absl::StrFormat("%.2f GB", amount * 1e-9);
}

// Plans of one rank.
class Planner {
 public:
  Planner(const RunConfig& config, const Dataset& train, Device* device,
          const Gpt& gpt, const Adapter& adapter)
      : config_(config),
        train_(train),
        device_(device),
        gpt_(gpt),
        adapter_(adapter) {}

  // With a micro-batch of other size, and other recomputation.
  int64_t TokensOf(int64_t micro_batch) const {
    RunConfig config = config_;
    config.train.micro_batch = micro_batch;
    return MostPassTokens(config, train_, device_->backend().pass_tokens);
  }
  MemoryPlan Plan(int64_t micro_batch, Recompute recompute) const {
    return PlanPassesUpTo(TokensOf(micro_batch), gpt_, adapter_, recompute,
                          device_);
  }
  MemoryPlan Plan() const {
    return Plan(config_.train.micro_batch, config_.recompute);
  }
  // For passes of every shape.
  bool AllRanksPlanAlike(Communicator& group) const;
  // That the device has not the memory for the plan.
  absl::Status Lacks(const MemoryPlan& plan) const;

 private:
  // What takes `free` bytes at most, a setting each.
  std::vector<std::string> Remedies(int64_t free) const;

  const RunConfig& config_;
  const Dataset& train_;
  Device* device_;
  const Gpt& gpt_;
  const Adapter& adapter_;
};

// Ranks that hold as much of each layer ask for the same if they are given as
// many rows. Where they split rows, and those of two passes that are next to
// each other in size evenly, they split those of all evenly.
bool Planner::AllRanksPlanAlike(Communicator& group) const {
  const int64_t tokens = TokensOf(config_.train.micro_batch);
  const auto plan = [&](int64_t count) {
    return PlanPassesUpTo(count, gpt_, adapter_, config_.recompute, device_);
  };
  return AllPlanAlike({plan(tokens), plan(tokens + kRowMultiple)}, group);
}

std::vector<std::string> Planner::Remedies(int64_t free) const {
  std::vector<std::string> remedies;
  const auto add = [&](const std::string& setting, const MemoryPlan& plan) {
    const auto bytes = static_cast<int64_t>(plan.bytes());
    if (bytes > free) return false;
    remedies.push_back(
        absl::StrCat("set ", setting, ", with which it takes ", Amount(bytes)));
    return true;
  };
  const TrainOptions& train = config_.train;
  for (int64_t rows = train.micro_batch - 1; rows > 0; --rows) {
    if (train.global_batch % (rows * config_.mesh.data) != 0) continue;
    if (add(absl::StrCat("train.micro_batch to ", rows),
            Plan(rows, config_.recompute))) {
      break;
    }
  }
  if (config_.recompute != Recompute::kBlock) {
    add("recompute to BLOCK", Plan(train.micro_batch, Recompute::kBlock));
  }
  if (remedies.empty()) {
    remedies.push_back(
        "raise mesh.tensor, or lower data.sequence_length and "
        "train.micro_batch");
  }
  return remedies;
}

absl::Status Planner::Lacks(const MemoryPlan& plan) const {
  const int64_t free = device_->backend().free_memory(device_->queue());
  const auto wanted = static_cast<int64_t>(plan.bytes());
  return absl::ResourceExhaustedError(absl::StrCat(
      "train.micro_batch is ", config_.train.micro_batch, ": a pass of ",
      TokensOf(config_.train.micro_batch), " tokens takes ", Amount(wanted),
      " for activations, and beside weights and adapter the ", "GPU has ",
      Amount(free), " left", wanted <= free ? ", in pieces; " : "; ",
      absl::StrJoin(Remedies(std::min(free, wanted - 1)), ", or ")));
}

}  // namespace

int64_t MostPassTokens(const RunConfig& config, const Dataset& train,
                       int64_t pass_tokens) {
  int64_t longest = 0;
  for (const Record& record : train.records) {
    longest = std::max(longest, record.num_tokens());
  }
  const int64_t row = config.data.pack ? config.data.sequence_length : longest;
  return std::min(config.train.micro_batch * row,
                  std::max(pass_tokens, longest));
}

absl::StatusOr<PlannedPasses> PlanPasses(const RunConfig& config,
                                         const Dataset& train,
                                         const Session& session, const Gpt& gpt,
                                         const Adapter& adapter) {
  Device* device = session.device();
  Communicator& world = session.mesh().world();
  const Planner planner(config, train, device, gpt, adapter);
  const MemoryPlan plan = planner.Plan();
  int64_t most[] = {static_cast<int64_t>(plan.bytes())};
  world.AllReduceMax(absl::MakeSpan(most), Purpose::kControl);
  PlannedPasses planned;
  planned.note = absl::StrCat(
      "a pass of up to ", planner.TokensOf(config.train.micro_batch),
      " tokens takes ", Amount(most[0]), " for activations");
  if (device->backend().memory == Memory::kHost) return planned;
  Communicator& tensor = session.mesh().tensor();
  const bool registers = tensor.size() > 1 && planner.AllRanksPlanAlike(tensor);
  planned.memory =
      PassMemory::Take(plan, device, registers ? &tensor : nullptr);
  if (planned.memory != nullptr && planned.memory->registered()) {
    absl::StrAppend(&planned.note, ", registered with NCCL");
  }
  LORICA_RETURN_IF_ERROR(
      Agree(planned.memory != nullptr ? absl::OkStatus() : planner.Lacks(plan),
            world));
  return planned;
}

}  // namespace lorica
