// Work that several ranks do beside training, in step.
#ifndef LORICA_PARALLEL_STAGED_WORK_H_
#define LORICA_PARALLEL_STAGED_WORK_H_

#include <functional>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace lorica {

// Done in a thread of its own, without collectives. Hears what the ranks'
// stages before it returned, by rank (the first hears nothing); returns what
// the next are to hear.
using Stage = std::function<absl::StatusOr<std::string>(
    const std::vector<std::string>& heard)>;

enum class Patience : uint8_t { kLook, kWait };

// Runs the stages one after another in a background thread on each rank of a
// group. A stage begins when all ranks have ended the one before, and only if
// none failed: the ranks' own threads see to that in Advance, the one place
// that talks to other ranks.
class StagedWork {
 public:
  // All ranks of the group, with as many stages each. Begins the first. The
  // group must outlive it.
  StagedWork(std::vector<Stage> stages, Communicator* group);
  // Waits for this rank's thread, not for the others'.
  ~StagedWork() = default;

  // Called by all ranks at the same moments: goes on to the next stage if all
  // are done with the present one (kLook), or until there is none left (kWait).
  // Returns the outcome once all is over: that of the lowest rank that failed,
  // the same on every rank. One exchange of a word while there is nothing to
  // do.
  std::optional<absl::Status> Advance(Patience patience);

 private:
  void Begin(std::vector<std::string> heard);
  // The same, for the present stage alone.
  std::optional<absl::Status> AdvanceOnce(Patience patience);

  std::vector<Stage> stages_;
  Communicator* group_;
  size_t next_ = 0;  // The stage after the present one.
  std::future<absl::StatusOr<std::string>> result_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_STAGED_WORK_H_
