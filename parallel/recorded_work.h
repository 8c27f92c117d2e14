// Work of several ops and collectives that a device is shown twice and then
// does again with one call.
#ifndef LORICA_PARALLEL_RECORDED_WORK_H_
#define LORICA_PARALLEL_RECORDED_WORK_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "parallel/communicator.h"
#include "runtime/allocator.h"
#include "runtime/recording.h"

namespace lorica {

// What work is recorded with. All of it outlives the recordings.
struct WorkRecorder {
  Recorder* recorder = nullptr;  // Null: nothing is recorded.
  // Of tensors that the work makes and lets go of, a kPool. All works may share
  // it; whenever one is done, no other tensor lies there.
  Allocator* memory = nullptr;
  // Whose collectives may be among the work, no other's: NCCL wants all ranks
  // of a collective to record it or none, and warns of deadlocks where one
  // thread starts recorded collectives of several groups.
  Communicator* group = nullptr;
};

// One piece of work, the same calls with the same arrays and numbers each time.
// It is a rehearsal at first, recorded at the second time and replayed from
// then on. All ranks of the group do it in step with each other.
class RecordedWork {
 public:
  explicit RecordedWork(Device* device, const WorkRecorder& by = {});
  // Waits for the device where something was recorded.
  ~RecordedWork();
  RecordedWork(RecordedWork&&) noexcept;
  RecordedWork& operator=(RecordedWork&&) noexcept;

  // Calls `work`, or has the device do what it did before.
  void Do(absl::FunctionRef<void()> work);

 private:
  void Show(absl::FunctionRef<void()> work);
  void Rehearse(absl::FunctionRef<void()> work);
  void Record(absl::FunctionRef<void()> work);

  Device* device_;
  WorkRecorder by_;
  Allocator::Plan plan_;
  std::unique_ptr<Recording> recording_;  // Null before the rehearsal.
  bool recorded_ = false;
  RecordedCalls calls_;
};

}  // namespace lorica

#endif  // LORICA_PARALLEL_RECORDED_WORK_H_
