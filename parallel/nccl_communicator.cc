#include "parallel/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "parallel/nccl_connection.h"
#include "parallel/tree_sum.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/launch.h"
#include "runtime/cuda/side_device.h"
#include "runtime/ops.h"

namespace lorica {
namespace {

// Arrays whose copies from all ranks take no more than this are gathered whole
// and summed everywhere, which waits for the network once instead of twice.
constexpr int64_t kGatherWholeBytes = 256 << 10;
// Chunks begin at multiples of this many elements.
constexpr int64_t kChunkElements = 128;

ncclDataType_t TypeOf(DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << dtype;
  return dtype == DType::kF32 ? ncclFloat32 : ncclBfloat16;
}

cudaStream_t StreamOf(const Tensor& tensor) {
  return cuda::StreamOf(tensor.device()->queue());
}

// What `later` is given from now on follows what `earlier` has.
void Order(cudaStream_t earlier, cudaStream_t later, cudaEvent_t event) {
  CUDA_CHECK(cudaEventRecord(event, earlier));
  CUDA_CHECK(cudaStreamWaitEvent(later, event, 0));
}

size_t ElementsOf(const Tensor& tensor) {
  return static_cast<size_t>(tensor.elements());
}

class NcclWork : public DeviceWork {
 public:
  NcclWork(std::shared_ptr<Connection> connection, cudaStream_t stream)
      : connection_(std::move(connection)), event_(connection_->TakeEvent()) {
    CUDA_CHECK(cudaEventRecord(event_, stream));
  }
  ~NcclWork() override { connection_->GiveBack(event_); }

  State Ask() override {
    if (connection_->closed()) return State::kDone;
    const ncclResult_t error = connection_->AsyncError();
    if (error != ncclSuccess && error != ncclInProgress) {
      error_ = ncclGetErrorString(error);
      return State::kFailed;
    }
    const cudaError_t queried = cudaEventQuery(event_);
    if (queried == cudaSuccess) return State::kDone;
    if (queried == cudaErrorNotReady) return State::kRunning;
    error_ = cudaGetErrorString(queried);
    return State::kFailed;
  }
  std::string error() const override { return error_; }
  void Abort() override { connection_->Abort(); }

 private:
  std::shared_ptr<Connection> connection_;
  cudaEvent_t event_;
  std::string error_;
};

// The sum in F32, in the tree of tree_sum.h, of some rows of `terms`, which are
// overwritten; it may be one of them.
Tensor SumOfRows(const Tensor& terms, Range range) {
  if (range.size() == 1) {
    const Tensor row = terms.Rows(range);
    return row.dtype() == DType::kF32 ? row : ops::Convert(row, DType::kF32);
  }
  const int64_t middle = range.begin + TreeSplit(range.size());
  Tensor left = SumOfRows(terms, {range.begin, middle});
  // A single term is added as it is: widening changes no bit.
  ops::AddInto(range.end - middle == 1 ? terms.Rows({middle, range.end})
                                       : SumOfRows(terms, {middle, range.end}),
               &left);
  return left;
}

// `out` = the sum of all rows, rounded once.
void SumRowsInto(const Tensor& terms, const Tensor& out) {
  if (out.elements() == 0) return;
  const Tensor sum = SumOfRows(terms, {0, terms.rows()});
  Tensor result = out.Reshape(sum.shape());
  ops::ConvertInto(sum, 1.0f, &result);
}

// The slices of a matrix by rank.
std::vector<Tensor> SlicesOf(const Tensor& whole,
                             absl::Span<const int64_t> rows) {
  std::vector<Tensor> slices;
  int64_t first = 0;
  for (const int64_t count : rows) {
    slices.push_back(whole.Rows({first, first + count}));
    first += count;
  }
  return slices;
}

// Chunks of a flat array by rank, as equal as their unit allows; the last ones
// may be empty.
std::vector<Tensor> ChunksOf(const Tensor& flat, int ranks) {
  const int64_t count = flat.elements();
  const int64_t units = (count + kChunkElements - 1) / kChunkElements;
  const int64_t chunk = (units + ranks - 1) / ranks * kChunkElements;
  std::vector<Tensor> chunks;
  for (int rank = 0; rank < ranks; ++rank) {
    const int64_t begin = std::min(count, rank * chunk);
    chunks.push_back(flat.Cols({begin, std::min(count, begin + chunk)}));
  }
  return chunks;
}

class NcclGroup : public DeviceCollectives {
 public:
  NcclGroup(std::shared_ptr<Connection> connection, int rank, int size);
  ~NcclGroup() override;

  void AllReduceSum(const Tensor& tensor, SumOrder order) override;
  void StartAllReduceSum(const Tensor& tensor, SumOrder order) override;
  void JoinSums(Device* device) override;
  Tensor CollectiveMemory(Device* device, int64_t elements) override;
  void AllGatherRows(const Tensor& slice, absl::Span<const int64_t> rows,
                     const Tensor& whole) override;
  void ReduceScatterRows(const Tensor& tensor, absl::Span<const int64_t> rows,
                         SumOrder order, const Tensor& slice) override;
  std::shared_ptr<DeviceWork> LastWork() override {
    return std::make_shared<NcclWork>(connection_, stream_);
  }
  std::shared_ptr<DeviceWork> WorkOf(Device* device) override {
    return std::make_shared<NcclWork>(connection_,
                                      cuda::StreamOf(device->queue()));
  }

 private:
  // stream_ waits for the queue of the tensor's device. On side_ that is the
  // same stream.
  void Follow(const Tensor& tensor);
  // A call of NCCL on stream_ after that queue's work, which the queue waits
  // for. None where that device computes nothing.
  void Run(const char* name, const Tensor& tensor,
           absl::FunctionRef<ncclResult_t()> call);
  // Every rank sends the elements of `pieces[r]`, in order, to rank r;
  // received [size, elements of this rank's piece].
  Tensor Exchange(absl::Span<const Tensor> pieces);
  // Pieces as AllGatherRows' rows, of vectors or matrices.
  void Gather(const Tensor& mine, absl::Span<const Tensor> pieces);

  std::shared_ptr<Connection> connection_;
  int rank_;
  int size_;
  std::unique_ptr<Device> side_;  // What is started beside the tensors' device.
  cudaStream_t stream_;           // Its queue's: of all collectives.
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

NcclGroup::NcclGroup(std::shared_ptr<Connection> connection, int rank, int size)
    : connection_(std::move(connection)),
      rank_(rank),
      size_(size),
      side_(cuda::OpenSideDevice()),
      stream_(cuda::StreamOf(side_->queue())) {
  CUDA_CHECK(cudaEventCreateWithFlags(&begin_, cudaEventDisableTiming));
  CUDA_CHECK(cudaEventCreateWithFlags(&end_, cudaEventDisableTiming));
}

NcclGroup::~NcclGroup() {
  CUDA_CHECK(cudaStreamSynchronize(stream_));
  connection_->Close();
  CUDA_CHECK(cudaEventDestroy(begin_));
  CUDA_CHECK(cudaEventDestroy(end_));
}

void NcclGroup::Follow(const Tensor& tensor) {
  Order(StreamOf(tensor), stream_, begin_);
}

void NcclGroup::Run(const char* name, const Tensor& tensor,
                    absl::FunctionRef<ncclResult_t()> call) {
  if (tensor.device()->backend().effect == Effect::kNone) return;
  Follow(tensor);
  connection_->Finish(call(), name);
  Order(stream_, StreamOf(tensor), end_);
}

Tensor NcclGroup::Exchange(absl::Span<const Tensor> pieces) {
  const Tensor& mine = pieces[static_cast<size_t>(rank_)];
  const Tensor received =
      Tensor::Empty(mine.device(), {size_, mine.elements()}, mine.dtype());
  const ncclDataType_t type = TypeOf(mine.dtype());
  Run("an exchange", mine, [&] {
    connection_->Finish(ncclGroupStart(), "ncclGroupStart");
    for (int peer = 0; peer < size_; ++peer) {
      const Tensor& piece = pieces[static_cast<size_t>(peer)];
      if (piece.elements() > 0) {
        ncclSend(piece.data(), ElementsOf(piece), type, peer,
                 connection_->comm(), stream_);
      }
      if (mine.elements() > 0) {
        ncclRecv(received.Rows({peer, peer + 1}).data(), ElementsOf(mine), type,
                 peer, connection_->comm(), stream_);
      }
    }
    return ncclGroupEnd();
  });
  return received;
}

void NcclGroup::Gather(const Tensor& mine, absl::Span<const Tensor> pieces) {
  const ncclDataType_t type = TypeOf(mine.dtype());
  const bool equal = std::all_of(
      pieces.begin(), pieces.end(),
      [&](const Tensor& piece) { return piece.elements() == mine.elements(); });
  if (mine.elements() == 0 && equal) return;
  if (equal) {
    return Run("ncclAllGather", mine, [&] {
      return ncclAllGather(mine.data(), pieces[0].data(), ElementsOf(mine),
                           type, connection_->comm(), stream_);
    });
  }
  Run("a gather", mine, [&] {
    connection_->Finish(ncclGroupStart(), "ncclGroupStart");
    for (int peer = 0; peer < size_; ++peer) {
      const Tensor& piece = pieces[static_cast<size_t>(peer)];
      if (piece.data() == mine.data()) continue;  // In place.
      if (mine.elements() > 0) {
        ncclSend(mine.data(), ElementsOf(mine), type, peer, connection_->comm(),
                 stream_);
      }
      if (piece.elements() > 0) {
        ncclRecv(piece.data(), ElementsOf(piece), type, peer,
                 connection_->comm(), stream_);
      }
    }
    return ncclGroupEnd();
  });
}

void NcclGroup::AllReduceSum(const Tensor& tensor, SumOrder order) {
  if (tensor.elements() == 0) return;
  if (order == SumOrder::kFastest) {
    return Run("ncclAllReduce", tensor, [&] {
      return ncclAllReduce(tensor.data(), tensor.data(), ElementsOf(tensor),
                           TypeOf(tensor.dtype()), ncclSum, connection_->comm(),
                           stream_);
    });
  }
  const Tensor flat = tensor.Reshape({tensor.elements()});
  const int64_t bytes =
      tensor.elements() * static_cast<int64_t>(SizeOf(tensor.dtype()));
  if (bytes * size_ <= kGatherWholeBytes) {
    const Tensor terms =
        Tensor::Empty(tensor.device(), {size_, flat.elements()}, flat.dtype());
    Gather(flat, SlicesOf(terms, std::vector<int64_t>(size_, 1)));
    return SumRowsInto(terms, tensor);
  }
  const std::vector<Tensor> chunks = ChunksOf(flat, size_);
  const Tensor& mine = chunks[static_cast<size_t>(rank_)];
  SumRowsInto(Exchange(chunks), mine);
  Gather(mine, chunks);
}

// The tensor as one of the side's: whatever the sum does, additions on the
// device included, is work of stream_.
void NcclGroup::StartAllReduceSum(const Tensor& tensor, SumOrder order) {
  Follow(tensor);
  AllReduceSum(Tensor::Borrow(side_.get(), tensor.shape(), tensor.dtype(),
                              tensor.data(), nullptr),
               order);
}

void NcclGroup::JoinSums(Device* device) {
  Order(stream_, cuda::StreamOf(device->queue()), end_);
}

Tensor NcclGroup::CollectiveMemory(Device* device, int64_t elements) {
  const size_t bytes = static_cast<size_t>(elements) * sizeof(float);
  const std::shared_ptr<RegisteredMemory> memory =
      RegisteredMemory::Allocate(connection_, bytes, device->queue(), stream_);
  if (memory == nullptr) return {};
  return Tensor::Borrow(device, {elements}, DType::kF32, memory->data(),
                        memory);
}

void NcclGroup::AllGatherRows(const Tensor& slice,
                              absl::Span<const int64_t> rows,
                              const Tensor& whole) {
  Gather(slice, SlicesOf(whole, rows));
}

void NcclGroup::ReduceScatterRows(const Tensor& tensor,
                                  absl::Span<const int64_t> rows,
                                  SumOrder order, const Tensor& slice) {
  const bool equal = std::all_of(rows.begin(), rows.end(), [&](int64_t count) {
    return count == rows[0];
  });
  if (tensor.elements() == 0) return;
  if (order == SumOrder::kTree || !equal) {
    SumRowsInto(Exchange(SlicesOf(tensor, rows)), slice);
    return;
  }
  Run("ncclReduceScatter", tensor, [&] {
    return ncclReduceScatter(tensor.data(), slice.data(), ElementsOf(slice),
                             TypeOf(tensor.dtype()), ncclSum,
                             connection_->comm(), stream_);
  });
}

// The id that rank 0 made, on every rank.
absl::StatusOr<ncclUniqueId> ShareId(Transport& group) {
  struct Message {
    ncclResult_t result;
    ncclUniqueId id;
  };
  Message message = {};
  if (group.rank() == 0) message.result = ncclGetUniqueId(&message.id);
  group.Broadcast(&message, sizeof(message), 0);
  if (message.result != ncclSuccess) {
    return absl::UnavailableError(
        absl::StrCat("NCCL on the group's first rank: ",
                     ncclGetErrorString(message.result)));
  }
  return message.id;
}

// Whether every rank has what it needs.
bool AllHave(bool mine, Transport& group) {
  std::vector<char> have(static_cast<size_t>(group.size()));
  have[static_cast<size_t>(group.rank())] = mine ? 1 : 0;
  group.AllGather(have.data(), std::vector<int64_t>(group.size(), 1));
  return std::all_of(have.begin(), have.end(), [](char h) { return h == 1; });
}

}  // namespace

OpenDeviceCollectives NcclCollectives(const NcclOptions& options) {
  return [options](Transport& group)
             -> absl::StatusOr<std::unique_ptr<DeviceCollectives>> {
    const absl::StatusOr<ncclUniqueId> id = ShareId(group);
    if (!id.ok()) return id.status();
    absl::StatusOr<std::shared_ptr<Connection>> connection =
        Connection::Open(*id, group.rank(), group.size(), options.open_timeout);
    if (!AllHave(connection.ok(), group)) {
      if (!connection.ok()) return connection.status();
      (*connection)->Abort();
      return absl::UnavailableError(
          "another rank of the group did not open NCCL");
    }
    return std::make_unique<NcclGroup>(*std::move(connection), group.rank(),
                                       group.size());
  };
}

}  // namespace lorica
