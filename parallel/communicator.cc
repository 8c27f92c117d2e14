#include "parallel/communicator.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "parallel/host_image.h"
#include "parallel/reduce.h"
#include "parallel/watchdog.h"
#include "runtime/check.h"
#include "runtime/trace.h"

namespace lorica {
namespace {

// Arrays whose copies from all ranks take no more than this are gathered whole.
constexpr int64_t kGatherWholeBytes = 64 << 10;
// Chunks begin at multiples of this many elements.
constexpr int64_t kChunkElements = 64;

void CheckRows(absl::Span<const int64_t> rows, int ranks, int64_t total) {
  CHECK_EQ(static_cast<int>(rows.size()), ranks);
  CHECK_EQ(std::accumulate(rows.begin(), rows.end(), int64_t{0}), total);
}

auto SumOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return SumTerms<float>;
    case DType::kBF16:
      return SumTerms<BFloat16>;
    case DType::kI32:
      return SumTerms<int32_t>;
    case DType::kI64:
      return SumTerms<int64_t>;
    case DType::kF16:
    case DType::kF64:
      break;
  }
  LOG(FATAL) << "no sum over ranks of " << dtype;
}

// Whether collectives of the tensor move anything. Where they do not they still
// ask for the memory that they would take.
Effect EffectOn(const Tensor& tensor) {
  return tensor.device()->backend().effect;
}

std::vector<int64_t> Times(absl::Span<const int64_t> values, int64_t factor) {
  std::vector<int64_t> products(values.begin(), values.end());
  for (int64_t& product : products) product *= factor;
  return products;
}

}  // namespace

const char* NameOf(Purpose purpose) {
  switch (purpose) {
    case Purpose::kActivation:
      return "activation";
    case Purpose::kActivationGrad:
      return "activation gradient";
    case Purpose::kLoss:
      return "loss";
    case Purpose::kAdapterGrad:
      return "adapter gradient";
    case Purpose::kCheckpoint:
      return "checkpoint";
    case Purpose::kControl:
      return "control";
  }
  return "?";
}

std::ostream& operator<<(std::ostream& out, Purpose purpose) {
  return out << NameOf(purpose);
}

std::ostream& operator<<(std::ostream& out, const Traffic& traffic) {
  return out << traffic.calls << " calls, " << traffic.bytes << " bytes";
}

// A collective in progress: counts it and shows it to the watchdog, or notes it
// where it is being recorded. One that moves nothing is none.
class Communicator::Call {
 public:
  Call(Communicator* group, const char* collective, Purpose purpose,
       int64_t bytes, Effect effect = Effect::kAll)
      : span_(SpanKind::kCollective, collective, NameOf(purpose),
              {.bytes = static_cast<double>(bytes)}),
        recorded_(group->recording_ != nullptr),
        watchdog_(recorded_ || effect == Effect::kNone ? nullptr
                                                       : group->watchdog_) {
    if (effect == Effect::kNone) return;
    const Traffic mine = {.calls = 1, .bytes = bytes};
    const auto index = static_cast<size_t>(purpose);
    if (recorded_) {
      group->recording_->traffic[index] += mine;
      return;
    }
    group->traffic_[index] += mine;
    ++group->sequence_;
    if (watchdog_ != nullptr) {
      watchdog_->Begin({.group = group,
                        .collective = collective,
                        .purpose = purpose,
                        .sequence = group->sequence_,
                        .bytes = bytes});
    }
  }
  ~Call() {
    CHECK(!recorded_ || in_device_) << "the host's collective is recorded";
    if (watchdog_ != nullptr) watchdog_->End();
  }
  // The collective goes on in a device when the call has ended.
  void GoesOnIn(DeviceCollectives* device) {
    in_device_ = true;
    if (watchdog_ != nullptr) watchdog_->Follow(device->LastWork());
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  Span span_;
  bool recorded_;
  bool in_device_ = false;
  Watchdog* watchdog_;
};

Communicator::Communicator(std::unique_ptr<Transport> transport)
    : transport_(std::move(transport)), world_ranks_(transport_->size()) {
  std::iota(world_ranks_.begin(), world_ranks_.end(), 0);
}

Communicator::Communicator(std::unique_ptr<Transport> transport,
                           std::vector<int> world_ranks, Watchdog* watchdog)
    : transport_(std::move(transport)),
      world_ranks_(std::move(world_ranks)),
      watchdog_(watchdog) {
  CHECK_EQ(static_cast<int>(world_ranks_.size()), transport_->size());
}

Communicator::~Communicator() = default;

void Communicator::SetDeviceCollectives(OpenDeviceCollectives open,
                                        DeviceSums sums) {
  open_device_ = std::move(open);
  device_sums_ = sums;
}

absl::Status Communicator::OpenDeviceCollectivesNow() {
  if (size() == 1 || device_ != nullptr || open_device_ == nullptr) {
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<DeviceCollectives>> opened =
      open_device_(*transport_);
  if (opened.ok()) device_ = *std::move(opened);
  return opened.status();
}

DeviceCollectives* Communicator::DeviceCollectivesFor(const Tensor& tensor) {
  if (tensor.device()->backend().memory == Memory::kHost ||
      open_device_ == nullptr ||
      (tensor.dtype() != DType::kF32 && tensor.dtype() != DType::kBF16)) {
    return nullptr;
  }
  CHECK(tensor.dense()) << "a collective on rows that are not dense";
  const absl::Status status = OpenDeviceCollectivesNow();
  CHECK(status.ok()) << "rank " << world_ranks_[rank()] << ": "
                     << status.message();
  return device_.get();
}

SumOrder Communicator::OrderFor(Purpose purpose) const {
  const bool activation =
      purpose == Purpose::kActivation || purpose == Purpose::kActivationGrad;
  return activation ? device_sums_.activations : device_sums_.others;
}

void Communicator::AllReduce(const Array& array, Combine combine) {
  if (array.count == 0) return;
  char* data = static_cast<char*>(array.data);
  const int64_t total_bytes = array.count * array.element_bytes;
  std::vector<const void*> terms(size());
  if (total_bytes * size() <= kGatherWholeBytes) {
    scratch_.resize(static_cast<size_t>(total_bytes * size()));
    for (int peer = 0; peer < size(); ++peer) {
      terms[peer] = scratch_.data() + peer * total_bytes;
    }
    std::copy_n(data, total_bytes, scratch_.data() + rank() * total_bytes);
    transport_->AllGather(scratch_.data(),
                          std::vector<int64_t>(size(), total_bytes));
    combine(terms, array.count, data);
    return;
  }
  const int64_t step = transport_->max_exchange_bytes() / array.element_bytes;
  for (int64_t begin = 0; begin < array.count; begin += step) {
    const int64_t count = std::min(step, array.count - begin);
    const int64_t groups = (count + kChunkElements - 1) / kChunkElements;
    const int64_t chunk = (groups + size() - 1) / size() * kChunkElements;
    char* block = data + begin * array.element_bytes;
    std::vector<int64_t> bytes(size());
    for (int peer = 0; peer < size(); ++peer) {
      terms[peer] = block + peer * chunk * array.element_bytes;
      bytes[peer] = std::clamp<int64_t>(count - peer * chunk, 0, chunk) *
                    array.element_bytes;
    }
    const std::vector<const void*> received =
        transport_->Exchange(terms, bytes);
    combine(received, bytes[rank()] / array.element_bytes,
            block + rank() * chunk * array.element_bytes);
    transport_->AllGather(block, bytes);
  }
}

void Communicator::AllReduceSum(Tensor* tensor, Purpose purpose) {
  AllReduceSum(tensor, purpose, Sum::kFollowed);
}

void Communicator::StartAllReduceSum(Tensor* tensor, Purpose purpose) {
  CHECK(recording_ == nullptr) << "a sum beside the work that is recorded";
  CHECK(EffectOn(*tensor) == Effect::kAll) << "a sum beside a dry run";
  AllReduceSum(tensor, purpose, Sum::kBeside);
}

void Communicator::JoinSums(Device* device) {
  if (device_ != nullptr) device_->JoinSums(device);
}

void Communicator::BeginRecording(RecordedCalls* calls) {
  CHECK(recording_ == nullptr);
  recording_ = calls;
}

void Communicator::EndRecording() { recording_ = nullptr; }

void Communicator::Replay(const RecordedCalls& calls, Device* device,
                          const std::function<void()>& replay) {
  Traffic all;
  Purpose purpose = Purpose::kControl;
  for (size_t i = 0; i < calls.traffic.size(); ++i) {
    all += calls.traffic[i];
    if (calls.traffic[i].calls > 0) purpose = static_cast<Purpose>(i);
  }
  if (all.calls == 0) return replay();
  if (watchdog_ != nullptr) {
    watchdog_->Begin({.group = this,
                      .collective = "recorded collectives",
                      .purpose = purpose,
                      .sequence = sequence_ + 1,
                      .calls = all.calls,
                      .bytes = all.bytes});
  }
  for (size_t i = 0; i < traffic_.size(); ++i) traffic_[i] += calls.traffic[i];
  sequence_ += all.calls;
  replay();
  if (watchdog_ == nullptr) return;
  watchdog_->Follow(device_->WorkOf(device));
  watchdog_->End();
}

Tensor Communicator::CollectiveMemory(Device* device, int64_t elements) {
  if (device_ == nullptr) return {};
  Tensor memory = device_->CollectiveMemory(device, elements);
  int64_t without[] = {memory.present() ? 0 : 1};
  AllReduceMax(absl::MakeSpan(without), Purpose::kControl);
  return without[0] == 0 ? memory : Tensor();
}

void Communicator::AllReduceSum(Tensor* tensor, Purpose purpose, Sum sum) {
  if (size() == 1) return;
  const int64_t element_bytes = static_cast<int64_t>(SizeOf(tensor->dtype()));
  const Effect effect = EffectOn(*tensor);
  Call call(this, "all-reduce sum", purpose, tensor->elements() * element_bytes,
            effect);
  if (DeviceCollectives* device = DeviceCollectivesFor(*tensor)) {
    const SumOrder order = OrderFor(purpose);
    if (sum == Sum::kBeside) {
      device->StartAllReduceSum(*tensor, order);
    } else {
      device->AllReduceSum(*tensor, order);
    }
    return call.GoesOnIn(device);
  }
  if (effect == Effect::kNone) return;
  const Combine combine = SumOf(tensor->dtype());
  const HostImage image(*tensor, HostImage::Access::kReadWrite);
  AllReduce({image.data(), tensor->elements(), element_bytes}, combine);
}

void Communicator::AllReduceMax(Tensor* tensor, Purpose purpose) {
  CHECK_EQ(tensor->dtype(), DType::kF32);
  if (size() == 1 || EffectOn(*tensor) == Effect::kNone) return;
  const Call call(this, "all-reduce max", purpose, tensor->elements() * 4);
  const HostImage image(*tensor, HostImage::Access::kReadWrite);
  AllReduce({image.data(), tensor->elements(), 4}, MaxTerms<float>);
}

Tensor Communicator::AllGatherRows(const Tensor& slice,
                                   absl::Span<const int64_t> rows,
                                   Purpose purpose) {
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  CheckRows(rows, size(), total);
  CHECK_EQ(slice.rows(), rows[rank()]);
  if (size() == 1) return slice;
  const int64_t row_bytes =
      slice.cols() * static_cast<int64_t>(SizeOf(slice.dtype()));
  const Effect effect = EffectOn(slice);
  Call call(this, "all-gather", purpose, total * row_bytes, effect);
  Tensor whole =
      Tensor::Empty(slice.device(), {total, slice.cols()}, slice.dtype());
  if (DeviceCollectives* device = DeviceCollectivesFor(slice)) {
    device->AllGatherRows(slice, rows, whole);
    call.GoesOnIn(device);
    return whole;
  }
  if (effect == Effect::kNone) return whole;
  const HostImage mine(slice, HostImage::Access::kRead);
  const HostImage all(whole, HostImage::Access::kWrite);
  const int64_t first =
      std::accumulate(rows.begin(), rows.begin() + rank(), int64_t{0});
  std::copy_n(mine.data(), rows[rank()] * row_bytes,
              all.data() + first * row_bytes);
  transport_->AllGather(all.data(), Times(rows, row_bytes));
  return whole;
}

Tensor Communicator::ReduceScatterRows(const Tensor& tensor,
                                       absl::Span<const int64_t> rows,
                                       Purpose purpose) {
  CheckRows(rows, size(), tensor.rows());
  if (size() == 1) return tensor;
  const Combine combine = SumOf(tensor.dtype());
  const int64_t element_bytes = static_cast<int64_t>(SizeOf(tensor.dtype()));
  const int64_t row_bytes = tensor.cols() * element_bytes;
  const Effect effect = EffectOn(tensor);
  Call call(this, "reduce-scatter", purpose, tensor.rows() * row_bytes, effect);
  Tensor slice = Tensor::Empty(tensor.device(), {rows[rank()], tensor.cols()},
                               tensor.dtype());
  if (DeviceCollectives* device = DeviceCollectivesFor(tensor)) {
    device->ReduceScatterRows(tensor, rows, OrderFor(purpose), slice);
    call.GoesOnIn(device);
    return slice;
  }
  if (effect == Effect::kNone) return slice;
  const HostImage whole(tensor, HostImage::Access::kRead);
  const HostImage mine(slice, HostImage::Access::kWrite);
  // Step by step through all slices at once, so that every rank has work.
  const std::vector<int64_t> slice_bytes = Times(rows, row_bytes);
  const int64_t longest =
      *std::max_element(slice_bytes.begin(), slice_bytes.end());
  const int64_t step =
      transport_->max_exchange_bytes() / size() / element_bytes * element_bytes;
  for (int64_t begin = 0; begin < longest; begin += step) {
    std::vector<const void*> send(size());
    std::vector<int64_t> bytes(size());
    const char* piece = whole.data() + begin;
    for (int peer = 0; peer < size(); piece += slice_bytes[peer], ++peer) {
      send[peer] = piece;
      bytes[peer] = std::clamp<int64_t>(slice_bytes[peer] - begin, 0, step);
    }
    combine(transport_->Exchange(send, bytes), bytes[rank()] / element_bytes,
            mine.data() + begin);
  }
  return slice;
}

void Communicator::AllReduceSum(absl::Span<float> values, Purpose purpose) {
  if (size() == 1) return;
  const int64_t count = static_cast<int64_t>(values.size());
  const Call call(this, "all-reduce sum", purpose, count * 4);
  AllReduce({values.data(), count, 4}, SumTerms<float>);
}

void Communicator::AllReduceSum(absl::Span<double> values, Purpose purpose) {
  if (size() == 1) return;
  const int64_t count = static_cast<int64_t>(values.size());
  const Call call(this, "all-reduce sum", purpose, count * 8);
  AllReduce({values.data(), count, 8}, SumTerms<double>);
}

void Communicator::AllReduceSum(absl::Span<int64_t> values, Purpose purpose) {
  if (size() == 1) return;
  const int64_t count = static_cast<int64_t>(values.size());
  const Call call(this, "all-reduce sum", purpose, count * 8);
  AllReduce({values.data(), count, 8}, SumTerms<int64_t>);
}

void Communicator::AllReduceMax(absl::Span<float> values, Purpose purpose) {
  if (size() == 1) return;
  const int64_t count = static_cast<int64_t>(values.size());
  const Call call(this, "all-reduce max", purpose, count * 4);
  AllReduce({values.data(), count, 4}, MaxTerms<float>);
}

void Communicator::AllReduceMax(absl::Span<int64_t> values, Purpose purpose) {
  if (size() == 1) return;
  const int64_t count = static_cast<int64_t>(values.size());
  const Call call(this, "all-reduce max", purpose, count * 8);
  AllReduce({values.data(), count, 8}, MaxTerms<int64_t>);
}

std::vector<std::string> Communicator::AllGatherBytes(const std::string& bytes,
                                                      Purpose purpose) {
  if (size() == 1) return {bytes};
  // Payload is this rank's until the others' lengths are known.
  const Call call(this, "all-gather bytes", purpose,
                  static_cast<int64_t>(bytes.size()));
  std::vector<int64_t> lengths(size());
  lengths[rank()] = static_cast<int64_t>(bytes.size());
  transport_->AllGather(lengths.data(), std::vector<int64_t>(size(), 8));
  std::string all(static_cast<size_t>(std::accumulate(
                      lengths.begin(), lengths.end(), int64_t{0})),
                  '\0');
  const int64_t first =
      std::accumulate(lengths.begin(), lengths.begin() + rank(), int64_t{0});
  bytes.copy(all.data() + first, bytes.size());
  transport_->AllGather(all.data(), lengths);
  std::vector<std::string> parts;
  size_t offset = 0;
  for (const int64_t length : lengths) {
    parts.push_back(all.substr(offset, static_cast<size_t>(length)));
    offset += static_cast<size_t>(length);
  }
  return parts;
}

std::string Communicator::BroadcastBytes(std::string bytes, int root,
                                         Purpose purpose) {
  CHECK_GE(root, 0);
  CHECK_LT(root, size());
  if (size() == 1) return bytes;
  const Call call(this, "broadcast", purpose,
                  rank() == root ? static_cast<int64_t>(bytes.size()) : 0);
  int64_t length = static_cast<int64_t>(bytes.size());
  transport_->Broadcast(&length, sizeof(length), root);
  bytes.resize(static_cast<size_t>(length));
  transport_->Broadcast(bytes.data(), length, root);
  return bytes;
}

void Communicator::Barrier() {
  if (size() == 1) return;
  const Call call(this, "barrier", Purpose::kControl, 0);
  transport_->Barrier();
}

std::unique_ptr<Communicator> Communicator::Part(
    std::unique_ptr<Transport> transport, std::vector<int> world_ranks) const {
  std::unique_ptr<Communicator> part(new Communicator(
      std::move(transport), std::move(world_ranks), watchdog_));
  part->SetDeviceCollectives(open_device_, device_sums_);
  return part;
}

std::unique_ptr<Communicator> Communicator::Split(int color, int key) {
  CHECK_GE(color, 0);
  if (size() == 1) {
    return Part(transport_->Split(color, key), world_ranks_);
  }
  const Call call(this, "split", Purpose::kControl, 0);
  struct Member {
    int color;
    int key;
    int world_rank;
  };
  std::vector<Member> members(size());
  members[rank()] = {color, key, world_ranks_[rank()]};
  transport_->AllGather(members.data(),
                        std::vector<int64_t>(size(), sizeof(Member)));
  std::erase_if(members, [color](const Member& m) { return m.color != color; });
  std::stable_sort(
      members.begin(), members.end(),
      [](const Member& a, const Member& b) { return a.key < b.key; });
  std::vector<int> world_ranks;
  for (const Member& member : members) {
    world_ranks.push_back(member.world_rank);
  }
  return Part(transport_->Split(color, key), std::move(world_ranks));
}

std::vector<int> Communicator::Missing() const {
  std::vector<int> missing = transport_->Missing();
  for (int& peer : missing) peer = world_ranks_[peer];
  return missing;
}

}  // namespace lorica
