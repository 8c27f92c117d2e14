#include "parallel/recorded_work.h"

#include "runtime/trace.h"

namespace lorica {

RecordedWork::RecordedWork(Device* device, const WorkRecorder& by)
    : device_(device), by_(by) {}

RecordedWork::~RecordedWork() = default;
RecordedWork::RecordedWork(RecordedWork&&) noexcept = default;
RecordedWork& RecordedWork::operator=(RecordedWork&&) noexcept = default;

void RecordedWork::Do(absl::FunctionRef<void()> work) {
  // A trace waits after each op.
  if (by_.recorder == nullptr || Tracing()) return work();
  if (!recorded_) Show(work);
  if (!recorded_) return;
  by_.group->Replay(calls_, device_, [this] { recording_->Replay(0, {}); });
}

// For the first or the second time.
void RecordedWork::Show(absl::FunctionRef<void()> work) {
  const Device::Scope scope(device_, by_.memory);
  by_.memory->BeginPlan(&plan_);
  if (recording_ == nullptr) {
    Rehearse(work);
  } else {
    Record(work);
  }
  by_.memory->EndPlan();
}

void RecordedWork::Rehearse(absl::FunctionRef<void()> work) {
  recording_ = by_.recorder->New();
  recording_->Begin(Recording::Phase::kRehearsal);
  work();
  recording_->End();
}

void RecordedWork::Record(absl::FunctionRef<void()> work) {
  recording_->Begin(Recording::Phase::kRecording);
  by_.group->BeginRecording(&calls_);
  work();
  by_.group->EndRecording();
  recording_->End();
  recorded_ = true;
}

}  // namespace lorica
