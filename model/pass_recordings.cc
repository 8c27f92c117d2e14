#include "model/pass_recordings.h"

#include <algorithm>
#include <string>
#include <utility>

#include "model/pass_memory.h"
#include "parallel/communicator.h"
#include "runtime/check.h"
#include "runtime/trace.h"

namespace lorica {
namespace {

ArrayView<Segment> ArrayOf(const std::vector<Segment>& segments) {
  return {segments.data(), std::ssize(segments)};
}

}  // namespace

absl::Status CheckRecords(const Device& device, Communicator& group) {
  const Recorder* recorder = device.backend().recorder(device.queue());
  if (recorder == nullptr) {
    return absl::FailedPreconditionError(
        "no rank has a GPU and CPUs have no graphs");
  }
  if (group.size() > 1 && !group.has_device_collectives()) {
    return absl::FailedPreconditionError(
        "lorica is built without NCCL, so tensor ranks talk by way of hosts");
  }
  const Segment record = {.num_queries = 1, .num_keys = 1};
  const std::vector<int64_t> fixed = recorder->Fixed({&record, 1});
  const std::string mine(reinterpret_cast<const char*>(fixed.data()),
                         fixed.size() * sizeof(int64_t));
  for (const std::string& other :
       group.AllGatherBytes(mine, Purpose::kControl)) {
    if (other == mine) continue;
    return absl::FailedPreconditionError(
        "some GPUs of a tensor group compute attention by a library and others "
        "do not, so that their passes differ in shape");
  }
  return absl::OkStatus();
}

// A shape, the memory that its passes find what is theirs in, and the work.
struct PassRecordings::Recorded {
  std::vector<int64_t> shape;
  Pass pass;
  RowLosses losses;
  Allocator::Plan plan;  // Of the activations.
  bool rehearsed = false;
  std::unique_ptr<Recording> work;
  std::vector<RecordedCalls> parts;  // Their collectives; none: not recorded.
};

PassRecordings::PassRecordings(const Gpt& gpt, const Adapter& adapter,
                               Recompute recompute, Device* device,
                               int64_t capacity, Allocator* activations)
    : gpt_(gpt),
      adapter_(adapter),
      recompute_(recompute),
      device_(device),
      recorder_(device->backend().recorder(device->queue())),
      capacity_(static_cast<size_t>(capacity)),
      own_(activations != nullptr
               ? nullptr
               : std::make_unique<Allocator>(
                     &device->backend(), device->queue(), Allocation::kPool)),
      activations_(activations != nullptr ? activations : own_.get()),
      beside_(std::make_unique<Allocator>(&device->backend(), device->queue(),
                                          Allocation::kPool)) {
  CHECK(recorder_ != nullptr) << device->backend().name << " does not record";
  CHECK_GT(capacity, 0);
}

PassRecordings::~PassRecordings() = default;

void PassRecordings::Run(const Pass& pass, float grad_scale,
                         const std::vector<int64_t>& layers,
                         const LayerDone& between, RowLosses* losses) {
  const ActivationScope scope(device_, activations_);
  const LayerDone done = [&](int64_t layer) {
    const bool told =
        std::find(layers.begin(), layers.end(), layer) != layers.end();
    if (told) between(layer);
  };
  gpt_.Train(pass, recompute_, grad_scale, adapter_, done, losses);
}

void PassRecordings::Rehearse(const LayersDone& done, Recorded* recorded) {
  constexpr auto kPhase = Recording::Phase::kRehearsal;
  Recording& work = *recorded->work;
  const auto between = [&](int64_t layer) {
    work.End();
    done.tell(layer);
    work.Begin(kPhase);
  };
  work.Begin(kPhase);
  Run(recorded->pass, 1.0f, done.layers, between, &recorded->losses);
  work.End();
  recorded->rehearsed = true;
}

void PassRecordings::Record(const LayersDone& done, Recorded* recorded) {
  Communicator& group = gpt_.group();
  const auto begin = [&] {
    recorded->work->Begin(Recording::Phase::kRecording);
    group.BeginRecording(&recorded->parts.emplace_back());
  };
  const auto end = [&] {
    group.EndRecording();
    recorded->work->End();
  };
  const auto between = [&](int64_t) {
    end();
    begin();
  };
  begin();
  Run(recorded->pass, 1.0f, done.layers, between, &recorded->losses);
  end();
  CHECK_EQ(recorded->parts.size(), done.layers.size() + 1);
  ++counts_.recorded;
}

void PassRecordings::Replay(const ArrayView<Segment>& segments,
                            const LayersDone& done, Recorded* recorded) {
  for (size_t part = 0; part < recorded->parts.size(); ++part) {
    gpt_.group().Replay(recorded->parts[part], device_, [&] {
      recorded->work->Replay(static_cast<int>(part), segments);
    });
    if (part < done.layers.size()) done.tell(done.layers[part]);
  }
  ++counts_.replayed;
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
  RowLosses losses(device_, rows.targets);
  recorded_.push_front({.shape = shape,
                        .pass = std::move(pass),
                        .losses = std::move(losses),
                        .work = recorder_->New()});
  return recorded_.front();
}

RowLosses PassRecordings::Train(const TrainingRows& rows, float grad_scale,
                                const LayersDone& done) {
  ++counts_.passes;
  const ArrayView<Segment> segments = ArrayOf(rows.segments);
  std::vector<int64_t> shape = recorder_->Fixed(segments);
  // A trace waits after each op.
  if (shape.empty() || Tracing()) {
    const Pass pass = MakeTrainingPass(device_, rows);
    RowLosses losses(device_, rows.targets);
    Run(pass, grad_scale, done.layers, done.tell, &losses);
    return losses;
  }
  shape.insert(shape.end(),
               {std::ssize(rows.ids), std::ssize(rows.targets),
                std::ssize(rows.selected), static_cast<int64_t>(rows.seed)});
  shape.insert(shape.end(), done.layers.begin(), done.layers.end());
  Recorded& recorded = Find(shape, rows);
  recorded.pass.grad_scale.CopyFrom(&grad_scale);
  if (recorded.parts.empty()) {
    activations_->BeginPlan(&recorded.plan);
    if (recorded.rehearsed) {
      Record(done, &recorded);
    } else {
      Rehearse(done, &recorded);
    }
    activations_->EndPlan();
  }
  if (!recorded.parts.empty()) Replay(segments, done, &recorded);
  // The next pass of the shape overwrites what is here.
  RowLosses losses(device_, rows.targets);
  losses.CopyFrom(recorded.losses);
  return losses;
}

}  // namespace lorica
