// Work of a queue as a graph of the CUDA runtime.
#ifndef LORICA_RUNTIME_CUDA_RECORDING_H_
#define LORICA_RUNTIME_CUDA_RECORDING_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "runtime/cuda/launch.h"
#include "runtime/recording.h"

namespace lorica::cuda {

struct StreamQueue;

// A recording captures the queue's stream. Nodes hold addresses and numbers as
// they were, so what they point to must stay: scratch memory and whatever is
// given to Keep does until the recording goes. Tables of segments, where there
// are any, lie in memory of its own and are copied there before each run. Other
// streams that wait for events of the queue's, and it for theirs, are part of
// the capture.
class StreamRecording final : public Recording {
 public:
  explicit StreamRecording(StreamQueue* queue);
  ~StreamRecording() override;

  void Begin(Phase phase) override;
  void End() override;
  void Replay(int part, const ArrayView<Segment>& segments) override;

  // For the work between Begin and End.
  bool captures() const { return captures_; }
  const void* Find(const RecordTable& table,
                   const ArrayView<Segment>& segments);
  void Keep(std::shared_ptr<const void> what) { kept_.push_back(what); }

 private:
  struct Table {
    size_t begin;  // In tables_on_device_.
    RecordTable table;
  };

  void CopyTables(const ArrayView<Segment>& segments);

  StreamQueue* queue_;
  bool captures_ = false;
  std::vector<cudaGraphExec_t> graphs_;           // By part.
  std::map<std::vector<int64_t>, Table> tables_;  // By name.
  size_t table_bytes_ = 0;
  char* tables_on_device_ = nullptr;
  std::vector<std::shared_ptr<const void>> kept_;
};

// Of a queue that all work goes through.
class StreamRecorder final : public Recorder {
 public:
  explicit StreamRecorder(StreamQueue* queue) : queue_(queue) {}

  std::unique_ptr<Recording> New() override;
  // The number of segments rounded up to a power of two; where a library
  // computes attention, the longest as its plans have it; and the rows that
  // they cover, all from the first on. Others are not recorded, nor more than
  // kMaxRecordedSegments.
  std::vector<int64_t> Fixed(const ArrayView<Segment>& segments) const override;

 private:
  StreamQueue* queue_;
};

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_RECORDING_H_
