#include "parallel/staged_work.h"

#include <chrono>
#include <utility>

#include "parallel/agreement.h"
#include "runtime/check.h"

namespace lorica {

StagedWork::StagedWork(std::vector<Stage> stages, Communicator* group)
    : stages_(std::move(stages)), group_(group) {
  CHECK(!stages_.empty());
  Begin({});
}

void StagedWork::Begin(std::vector<std::string> heard) {
  result_ = std::async(std::launch::async, stages_[next_++], std::move(heard));
}

std::optional<absl::Status> StagedWork::AdvanceOnce(Patience patience) {
  if (patience == Patience::kLook) {
    const bool ended =
        result_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    int64_t running[] = {ended ? 0 : 1};
    group_->AllReduceMax(absl::MakeSpan(running), Purpose::kCheckpoint);
    if (running[0] != 0) return std::nullopt;
  }
  const absl::StatusOr<std::string> mine = result_.get();
  const absl::Status all = Agree(mine.status(), *group_);
  if (!all.ok() || next_ == stages_.size()) return all;
  Begin(group_->AllGatherBytes(*mine, Purpose::kCheckpoint));
  return std::nullopt;
}

std::optional<absl::Status> StagedWork::Advance(Patience patience) {
  std::optional<absl::Status> outcome = AdvanceOnce(patience);
  while (patience == Patience::kWait && !outcome.has_value()) {
    outcome = AdvanceOnce(patience);
  }
  return outcome;
}

}  // namespace lorica
