// Training passes that the device does again with one call, for models so small
// that giving it a pass op by op takes longer than computing it.
#ifndef LORICA_MODEL_PASS_RECORDINGS_H_
#define LORICA_MODEL_PASS_RECORDINGS_H_

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "model/pass.h"
#include "model/recompute.h"
#include "parallel/recorded_work.h"
#include "runtime/allocator.h"
#include "runtime/recording.h"

namespace lorica {

// What a device, or the collectives of its tensor group, lack to record passes:
// FailedPrecondition. All ranks of the group call it, with devices of one kind.
absl::Status CheckRecords(const Device& device, Communicator& group);

// Where something is done beside the rest of a pass: `tell` is called for each
// of `layers` once its gradients are complete, in this order, from the last
// down.
struct LayersDone {
  std::vector<int64_t> layers;
  LayerDone tell;
};

// Recordings of forward and backward passes over one model and adapter. A pass
// is recorded the second time that one of its shape comes: of as many tokens,
// rows that go on and segments, rounded up as the device has it. What else
// differs from pass to pass lies in memory of the recording, and is put there
// before a replay: tokens, positions, targets, row numbers, bounds of records
// and the gradient's scale. Activations of all shapes share one memory.
//
// The collectives of the model's tensor group are part of it. Its ranks are
// given the same passes and see the same shapes, so each pass is a rehearsal,
// a recording or a replay on all of them. What LayersDone::tell enqueues is not
// part of it: such a pass is a shape of its own, recorded in parts between
// which the layers are told of.
//
// The results are those of Gpt::Train, bit for bit: of the same work in the
// same order.
class PassRecordings {
 public:
  // Recordings of the `capacity` shapes that were used last are kept.
  // CheckRecords found nothing. Activations lie in memory of `activations`,
  // null: of this one's own. The arguments must outlive this.
  PassRecordings(const Gpt& gpt, const Adapter& adapter, Recompute recompute,
                 Device* device, int64_t capacity,
                 Allocator* activations = nullptr);
  ~PassRecordings();
  PassRecordings(const PassRecordings&) = delete;
  PassRecordings& operator=(const PassRecordings&) = delete;

  // As Gpt::Train, with `done` told of its layers alone.
  RowLosses Train(const TrainingRows& rows, float grad_scale,
                  const LayersDone& done = {});

  // What work beside the passes can be recorded with. Its tensors do not lie
  // among activations, as planned memory has room for those alone.
  WorkRecorder work_recorder() const {
    return {
        .recorder = recorder_, .memory = beside_.get(), .group = &gpt_.group()};
  }

  // Passes so far: all, those replayed, and how often one was recorded.
  struct Counts {
    int64_t passes = 0;
    int64_t replayed = 0;
    int64_t recorded = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Recorded;

  // Forward and backward; the memory of activations is free afterwards.
  // `between` is called after each of `layers`.
  void Run(const Pass& pass, float grad_scale,
           const std::vector<int64_t>& layers, const LayerDone& between,
           RowLosses* losses);
  // Goes through the pass of a recording for the first or the second time.
  void Rehearse(const LayersDone& done, Recorded* recorded);
  void Record(const LayersDone& done, Recorded* recorded);
  void Replay(const ArrayView<Segment>& segments, const LayersDone& done,
              Recorded* recorded);
  Recorded& Find(const std::vector<int64_t>& shape, const TrainingRows& rows);

  const Gpt& gpt_;
  const Adapter& adapter_;
  Recompute recompute_;
  Device* device_;
  Recorder* recorder_;
  size_t capacity_;
  std::unique_ptr<Allocator> own_;  // Where none was given.
  Allocator* activations_;
  std::unique_ptr<Allocator> beside_;
  std::list<Recorded> recorded_;  // The latest first.
  Counts counts_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_PASS_RECORDINGS_H_
