#include "launch/state/shared_directory.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "parallel/agreement.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {

absl::StatusOr<int> LeaderOfDirectory(const std::string& directory,
                                      Communicator& group) {
  // A word of its own, so that no other run's file is taken for one of these.
  const std::string word = group.BroadcastBytes(
      absl::StrCat(getpid(), "-", absl::GetCurrentTimeNanos()), 0,
      Purpose::kControl);
  const auto sign_of = [&](int rank) {
    return absl::StrCat(directory, "/.rank-", rank, "-", word);
  };
  const std::string mine = sign_of(group.rank());
  const auto remove = absl::MakeCleanup([&] { unlink(mine.c_str()); });
  LORICA_RETURN_IF_ERROR(Agree(WriteFileAtomically(mine, ""), group));
  int leader = 0;
  std::error_code error;
  while (!std::filesystem::exists(sign_of(leader), error)) ++leader;
  group.Barrier();  // Before the signs go.
  return leader;
}

}  // namespace lorica
