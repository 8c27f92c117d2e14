#include "parallel/agreement.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace lorica {

absl::Status Agree(const absl::Status& mine, Communicator& group) {
  if (group.size() == 1) return mine;
  // The lowest failing rank is the largest distance from the end.
  int64_t maxima[] = {mine.ok() ? 0 : group.size() - group.rank(),
                      mine.ok() ? 1 : 0};
  group.AllReduceMax(absl::MakeSpan(maxima), Purpose::kControl);
  if (maxima[0] == 0) return absl::OkStatus();
  const bool all_failed = maxima[1] == 0;
  const int failed = group.size() - static_cast<int>(maxima[0]);
  const std::string verdict = group.BroadcastBytes(
      absl::StrCat(std::string(1, static_cast<char>(mine.raw_code())),
                   mine.message()),
      failed, Purpose::kControl);
  const std::string rank =
      absl::StrCat("rank ", group.world_rank(failed), ": ");
  return absl::Status(static_cast<absl::StatusCode>(verdict.front()),
                      absl::StrCat(all_failed ? "" : rank, verdict.substr(1)));
}

}  // namespace lorica
