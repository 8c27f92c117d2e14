#include "parallel/agreement.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace lorica {

absl::Status Agree(const absl::Status& mine, Communicator& group) {
  if (group.size() == 1) return mine;
  // The lowest failing rank is the largest distance from the end.
  int64_t from_end = mine.ok() ? 0 : group.size() - group.rank();
  group.AllReduceMax(absl::MakeSpan(&from_end, 1), Purpose::kControl);
  if (from_end == 0) return absl::OkStatus();
  const int failed = group.size() - static_cast<int>(from_end);
  const std::string verdict = group.BroadcastBytes(
      absl::StrCat(std::string(1, static_cast<char>(mine.raw_code())),
                   mine.message()),
      failed, Purpose::kControl);
  return absl::Status(
      static_cast<absl::StatusCode>(verdict.front()),
      absl::StrCat("rank ", group.world_rank(failed), ": ", verdict.substr(1)));
}

}  // namespace lorica
