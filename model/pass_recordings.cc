#include "model/pass_recordings.h"

#include <algorithm>
#include <utility>

#include "parallel/communicator.h"
#include "runtime/check.h"
#include "runtime/trace.h"

namespace lorica {
namespace {

ArrayView<Segment> ArrayOf(const std::vector<Segment>& segments) {
  return {segments.data(), std::ssize(segments)};
}

}  // namespace

// A shape, the memory that its passes find what is theirs in, and the work.
struct PassRecordings::Recorded {
  std::vector<int64_t> shape;
  Pass pass;
  RowLosses losses;
  Allocator::Plan plan;  // Of the activations.
  bool rehearsed = false;
  bool recorded = false;
  std::unique_ptr<Recording> work;
  RecordedCalls collectives;
};

PassRecordings::PassRecordings(const Gpt& gpt, const Adapter& adapter,
                               Recompute recompute, Device* device,
                               int64_t capacity)
    : gpt_(gpt),
      adapter_(adapter),
      recompute_(recompute),
      device_(device),
      recorder_(device->backend().recorder(device->queue())),
      capacity_(static_cast<size_t>(capacity)),
      activations_(&device->backend(), device->queue(), Allocation::kPool) {
  CHECK(recorder_ != nullptr) << device->backend().name << " does not record";
  CHECK(gpt.group().size() == 1 || gpt.group().has_device_collectives());
  CHECK_GT(capacity, 0);
}

PassRecordings::~PassRecordings() = default;

void PassRecordings::Run(const Pass& pass, float grad_scale,
                         RowLosses* losses) {
  const Device::Scope scope(device_, &activations_);
  losses->CopyFrom(gpt_.Train(pass, recompute_, grad_scale, adapter_));
}

RowLosses PassRecordings::TrainOnce(const TrainingRows& rows,
                                    float grad_scale) {
  const Pass pass = MakeTrainingPass(device_, rows);
  RowLosses losses(pass.targets);
  Run(pass, grad_scale, &losses);
  return losses;
}

PassRecordings::Recorded& PassRecordings::Find(
    const std::vector<int64_t>& shape, const TrainingRows& rows) {
  const auto found =
      std::find_if(recorded_.begin(), recorded_.end(),
                   [&](const Recorded& r) { return r.shape == shape; });
  if (found != recorded_.end()) {
    recorded_.splice(recorded_.begin(), recorded_, found);
    Replace(rows, &found->pass);
    return *found;
  }
  if (recorded_.size() == capacity_) recorded_.pop_back();
  Pass pass = MakeTrainingPass(device_, rows);
  pass.grad_scale = Tensor::Empty(device_, {1}, DType::kF32);
  RowLosses losses(pass.targets);
  recorded_.push_front({.shape = shape,
                        .pass = std::move(pass),
                        .losses = std::move(losses),
                        .work = recorder_->New()});
  return recorded_.front();
}

RowLosses PassRecordings::Train(const TrainingRows& rows, float grad_scale) {
  ++counts_.passes;
  std::vector<int64_t> shape = recorder_->Fixed(ArrayOf(rows.segments));
  // A trace waits after each op.
  if (shape.empty() || Tracing()) return TrainOnce(rows, grad_scale);
  shape.insert(shape.end(),
               {std::ssize(rows.ids), std::ssize(rows.targets),
                std::ssize(rows.selected), static_cast<int64_t>(rows.seed)});
  Recorded& recorded = Find(shape, rows);
  Communicator& group = gpt_.group();
  recorded.pass.grad_scale.CopyFrom(&grad_scale);
  if (!recorded.recorded) {
    const auto phase = recorded.rehearsed ? Recording::Phase::kRecording
                                          : Recording::Phase::kRehearsal;
    activations_.BeginPlan(&recorded.plan);
    recorded.work->Begin(phase);
    if (recorded.rehearsed) group.BeginRecording(&recorded.collectives);
    Run(recorded.pass, 1.0f, &recorded.losses);
    if (recorded.rehearsed) group.EndRecording();
    recorded.work->End();
    activations_.EndPlan();
    counts_.recorded += recorded.rehearsed ? 1 : 0;
    recorded.recorded = std::exchange(recorded.rehearsed, true);
  }
  if (recorded.recorded) {
    group.Replay(recorded.collectives, device_,
                 [&] { recorded.work->Replay(ArrayOf(rows.segments)); });
    ++counts_.replayed;
  }
  // The next pass of the shape overwrites what is here.
  RowLosses losses(Tensor::FromHost<int32_t>(
      device_, {std::ssize(rows.targets)}, rows.targets));
  losses.CopyFrom(recorded.losses);
  return losses;
}

}  // namespace lorica
