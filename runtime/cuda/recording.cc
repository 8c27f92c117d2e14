#include "runtime/cuda/recording.h"

#include <algorithm>
#include <bit>

#include "runtime/cuda/attention/uncovered.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/queue.h"

namespace lorica::cuda {
namespace {

// Of one recording. A table is 20 kilobytes at most; all layers of one kind
// share it.
constexpr size_t kTableBytes = size_t{1} << 20;
constexpr size_t kTableUnit = 256;

// Where the rows of all segments end, if they have each row before that and
// none is empty; else -1.
int64_t EndOf(const ArrayView<Segment>& segments, Side side) {
  int64_t end = 0;
  for (const Segment& s : segments) {
    if (s.num_queries == 0 || s.num_keys == 0) return -1;
    end = std::max(end, side == Side::kQueries ? s.first_query + s.num_queries
                                               : s.first_key + s.num_keys);
  }
  ForUncovered(segments, side, end, [&](Range) { end = -1; });
  return end;
}

}  // namespace

StreamRecording::StreamRecording(StreamQueue* queue) : queue_(queue) {}

StreamRecording::~StreamRecording() {
  CUDA_CHECK(cudaStreamSynchronize(queue_->stream));
  for (const cudaGraphExec_t graph : graphs_) {
    CUDA_CHECK(cudaGraphExecDestroy(graph));
  }
  if (tables_on_device_ == nullptr) return;
  CUDA_CHECK(cudaFreeAsync(tables_on_device_, queue_->stream));
}

// Other threads may go on asking about events of other streams.
void StreamRecording::Begin(Phase phase) {
  CHECK(queue_->recording == nullptr);
  queue_->recording = this;
  if (phase == Phase::kRehearsal) {
    CHECK(graphs_.empty()) << "a rehearsal after the recording";
    return;
  }
  captures_ = true;
  CUDA_CHECK(
      cudaStreamBeginCapture(queue_->stream, cudaStreamCaptureModeThreadLocal));
}

void StreamRecording::End() {
  CHECK(queue_->recording == this);
  queue_->recording = nullptr;
  if (!captures_) return;
  captures_ = false;
  cudaGraph_t captured = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(queue_->stream, &captured));
  CUDA_CHECK(cudaGraphInstantiate(&graphs_.emplace_back(), captured, 0));
  CUDA_CHECK(cudaGraphDestroy(captured));
  for (const auto& block : queue_->scratch) Keep(block);
}

void StreamRecording::Replay(int part, const ArrayView<Segment>& segments) {
  if (part == 0 && !tables_.empty()) CopyTables(segments);
  CUDA_CHECK(
      cudaGraphLaunch(graphs_.at(static_cast<size_t>(part)), queue_->stream));
}

void StreamRecording::CopyTables(const ArrayView<Segment>& segments) {
  std::vector<char> image(table_bytes_);
  for (const auto& [name, at] : tables_) {
    at.table.fill(segments, image.data() + at.begin);
  }
  queue_->ring.CopyIn(tables_on_device_, image.data(), image.size(),
                      queue_->stream);
}

const void* StreamRecording::Find(const RecordTable& table,
                                  const ArrayView<Segment>& segments) {
  const auto found = tables_.find(table.name);
  if (found != tables_.end()) return tables_on_device_ + found->second.begin;
  if (tables_on_device_ == nullptr) {
    CheckNotCaptured(queue_, "a request for memory");
    void* data = nullptr;
    CUDA_CHECK(cudaMallocAsync(&data, kTableBytes, queue_->stream));
    tables_on_device_ = static_cast<char*>(data);
  }
  const size_t begin = table_bytes_;
  table_bytes_ += (table.bytes + kTableUnit - 1) / kTableUnit * kTableUnit;
  CHECK_LE(table_bytes_, kTableBytes) << "tables of segments";
  tables_.emplace(table.name, Table{begin, table});
  char* const place = tables_on_device_ + begin;
  // What is recorded finds it there when it runs.
  if (!captures_) {
    std::vector<char> image(table.bytes);
    table.fill(segments, image.data());
    queue_->ring.CopyIn(place, image.data(), image.size(), queue_->stream);
  }
  return place;
}

std::unique_ptr<Recording> StreamRecorder::New() {
  return std::make_unique<StreamRecording>(queue_);
}

std::vector<int64_t> StreamRecorder::Fixed(
    const ArrayView<Segment>& segments) const {
  if (segments.size > kMaxRecordedSegments) return {};
  const int64_t queries = EndOf(segments, Side::kQueries);
  const int64_t keys = EndOf(segments, Side::kKeys);
  if (queries < 0 || keys < 0) return {};
  int64_t longest = 0;
  for (const Segment& s : segments) {
    longest = std::max(longest, s.num_queries);
  }
  const auto count = static_cast<uint64_t>(segments.size);
  return {static_cast<int64_t>(std::bit_ceil(count)),
          queue_->attention->LongestOfPlans(longest), queries, keys};
}

bool IsRecorded(Queue* queue) { return Of(queue)->recording != nullptr; }

const void* RecordedTable(Queue* queue, const RecordTable& table,
                          const ArrayView<Segment>& segments) {
  return Of(queue)->recording->Find(table, segments);
}

}  // namespace lorica::cuda
