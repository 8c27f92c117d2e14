// Work that a device has been shown once and does again with one call, as where
// giving it piece by piece takes longer than doing it.
#ifndef LORICA_RUNTIME_RECORDING_H_
#define LORICA_RUNTIME_RECORDING_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/backend.h"

namespace lorica {

// Everything that is enqueued between a Begin and its End: twice the same calls
// with the same arrays, shapes and numbers, where only the segments of
// attention may differ.
//
//   rehearsal   runs, and leaves plans and scratch memory behind
//   recording   enqueues nothing, and is remembered
//
// In a recording nothing may wait for the device, copy from or to the host, or
// ask the device for memory. Work can have several parts, with a Begin and an
// End each: what is enqueued between them belongs to none.
class Recording {
 public:
  enum class Phase : uint8_t { kRehearsal, kRecording };

  // Waits for the device.
  virtual ~Recording() = default;

  // A rehearsal of all parts comes before the recording of any.
  virtual void Begin(Phase phase) = 0;
  virtual void End() = 0;
  // Enqueues a part of what was recorded, with these segments in place of those
  // it was recorded with. They are alike in Recorder::Fixed. The parts, from 0
  // on, come in their order and with the same segments.
  virtual void Replay(int part, const ArrayView<Segment>& segments) = 0;
};

// One a queue.
class Recorder {
 public:
  virtual std::unique_ptr<Recording> New() = 0;
  // What of the segments a recording cannot change: those with equal numbers
  // can share one. Empty where they cannot be recorded.
  virtual std::vector<int64_t> Fixed(
      const ArrayView<Segment>& segments) const = 0;

 protected:
  Recorder() = default;
  ~Recorder() = default;
};

// Of devices that do not record.
inline Recorder* NoRecorder(Queue*) { return nullptr; }

}  // namespace lorica

#endif  // LORICA_RUNTIME_RECORDING_H_
