#include "runtime/cuda/cudnn_attention.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "runtime/check.h"
#include "runtime/cuda/attention/padded_stats.h"
#include "runtime/cuda/attention/uncovered.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.h"
#include "runtime/cuda/queue.h"

namespace lorica::cuda {
namespace {

// Tokens of the shortest record that a plan is made for.
constexpr int64_t kLeastTokens = 64;
constexpr int64_t kMaxRecords = 4096;
constexpr int64_t kElementsPer16Bytes = 8;

PerSdpaMatrix<View> MatricesOf(const AttentionArgs& args) {
  return {args.q, args.k, args.v, args.out};
}
PerSdpaMatrix<View> MatricesOf(const AttentionBackwardArgs& args) {
  const AttentionArgs& forward = args.forward;
  return {forward.q, forward.k, forward.v, forward.out,
          args.dout, args.dq,   args.dk,   args.dv};
}

int64_t Stride(const View& matrix) {
  return std::max(matrix.row_stride, matrix.cols);
}

// Whether the library takes the matrix, and int32 reaches all of it.
bool IsTaken(const View& matrix) {
  return reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 &&
         Stride(matrix) % kElementsPer16Bytes == 0 &&
         matrix.rows <= std::numeric_limits<int32_t>::max() / Stride(matrix);
}

// The segments that have tokens, in the order of their rows. Empty where they
// are not self-attention in one order of queries and keys.
std::vector<Segment> RecordsOf(const ArrayView<Segment>& segments) {
  std::vector<Segment> records;
  for (const Segment& s : segments) {
    if (s.num_queries != s.num_keys) return {};
    if (s.num_queries > 0) records.push_back(s);
  }
  std::sort(records.begin(), records.end(),
            [](const Segment& a, const Segment& b) {
              return a.first_query < b.first_query;
            });
  for (size_t i = 1; i < records.size(); ++i) {
    if (records[i].first_key < records[i - 1].first_key) return {};
  }
  return records;
}

std::string Describe(const SdpaShape& shape) {
  return absl::StrCat(shape.direction == Direction::kForward
                          ? "attention"
                          : "attention's gradient",
                      " of ", shape.heads, " heads over ", shape.kv_heads,
                      " of ", shape.head_dim, " elements, ", shape.records,
                      " records of up to ", shape.longest, " tokens");
}

int64_t RoundedLongest(int64_t longest) {
  return RoundedUp(std::max(kLeastTokens, longest));
}

int64_t Longest(const std::vector<Segment>& records) {
  int64_t longest = 0;
  for (const Segment& s : records) longest = std::max(longest, s.num_queries);
  return longest;
}

}  // namespace

// What a call needs, in either direction. Its records are taken by `groups`
// calls of the library one after another, each of shape.records slots.
struct CudnnAttention::Call {
  Call(Direction direction, GradOrder order, const AttentionArgs& args,
       const PerSdpaMatrix<View>& operands);

  // Of a group, as are its numbers.
  SdpaArrays Arrays(const int32_t* numbers) const;
  PaddedStats Stats(const int32_t* numbers, float* data) const {
    return {.data = data,
            .starts = numbers + shape.records,
            .lengths = numbers,
            .records = shape.records,
            .heads = shape.heads,
            .longest = shape.longest};
  }

  PerSdpaMatrix<View> matrices;
  ArrayView<Segment> segments;
  std::vector<Segment> records;
  View lse;
  SdpaShape shape;
  int64_t groups = 1;
  bool taken;
};

CudnnAttention::Call::Call(Direction direction, GradOrder order,
                           const AttentionArgs& args,
                           const PerSdpaMatrix<View>& operands)
    : matrices(operands),
      segments(args.segments),
      records(RecordsOf(args.segments)),
      lse(args.lse) {
  shape = {.direction = direction,
           .order = order,
           .heads = args.q.cols / args.head_dim,
           .kv_heads = args.k.cols / args.head_dim,
           .head_dim = args.head_dim,
           .records = static_cast<int64_t>(std::bit_ceil(records.size())),
           .longest = RoundedLongest(Longest(records)),
           .scale = args.scale};
  if (direction == Direction::kBackward) {
    shape.tokens = RoundedUp(std::max(args.q.rows, args.k.rows));
  }
  taken = args.q.dtype == DType::kBF16 && !records.empty() &&
          shape.records <= kMaxRecords && shape.heads <= kMaxPaddedRecords &&
          args.head_dim % kElementsPer16Bytes == 0;
  for (size_t i = 0; i < NumMatrices(direction); ++i) {
    taken = taken && IsTaken(matrices[i]);
    shape.row_strides[i] = Stride(matrices[i]);
  }
}

namespace {

int64_t NumbersAGroup(const SdpaShape& shape) {
  return 2 * shape.records +
         static_cast<int64_t>(NumMatrices(shape.direction)) *
             (shape.records + 1);
}

// lengths [R], starts [R], then offsets [R + 1] of each matrix.
std::vector<int32_t> NumbersOfGroup(const SdpaShape& shape,
                                    absl::Span<const Segment> records) {
  const auto slots = static_cast<size_t>(shape.records);
  std::vector<int32_t> numbers(2 * slots);
  for (size_t i = 0; i < records.size(); ++i) {
    numbers[i] = static_cast<int32_t>(records[i].num_queries);
    numbers[slots + i] = static_cast<int32_t>(records[i].first_query);
  }
  for (size_t i = 0; i < NumMatrices(shape.direction); ++i) {
    const bool keys = IsOfKeys(kSdpaMatrices[i]);
    const auto add = [&](int64_t row) {
      numbers.push_back(static_cast<int32_t>(row * shape.row_strides[i]));
    };
    for (const Segment& s : records) add(keys ? s.first_key : s.first_query);
    const Segment last = records.empty() ? Segment() : records.back();
    const int64_t end =
        (keys ? last.first_key : last.first_query) + last.num_queries;
    for (size_t slot = records.size(); slot <= slots; ++slot) add(end);
  }
  return numbers;
}

// One group's after another's.
std::vector<int32_t> NumbersOf(const SdpaShape& shape, int64_t groups,
                               absl::Span<const Segment> records) {
  const auto slots = static_cast<size_t>(shape.records);
  std::vector<int32_t> numbers;
  for (int64_t group = 0; group < groups; ++group) {
    const std::vector<int32_t> more =
        NumbersOfGroup(shape, records.subspan(0, slots));
    numbers.insert(numbers.end(), more.begin(), more.end());
    records.remove_prefix(std::min(records.size(), slots));
  }
  return numbers;
}

}  // namespace

SdpaArrays CudnnAttention::Call::Arrays(const int32_t* numbers) const {
  SdpaArrays arrays = {.lengths = numbers};
  const int32_t* next = numbers + 2 * shape.records;
  for (size_t i = 0; i < NumMatrices(shape.direction); ++i) {
    arrays.matrices[i] = matrices[i].data;
    arrays.offsets[i] = next;
    next += shape.records + 1;
  }
  return arrays;
}

namespace {

size_t MemoryOfGpu() {
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp properties = {};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return properties.totalGlobalMem;
}

}  // namespace

CudnnAttention::CudnnAttention(cudaStream_t stream) : stream_(stream) {}

CudnnAttention::~CudnnAttention() = default;

void CudnnAttention::Choose(AttentionKernels choice) {
  choice_ = choice;
  if (choice == AttentionKernels::kOwn || library_ != nullptr) return;
  absl::StatusOr<std::unique_ptr<SdpaLibrary>> library = OpenSdpa(stream_);
  if (library.ok()) {
    library_ = *std::move(library);
    most_workspace_ = std::min(kMaxWorkspaceBytes, MemoryOfGpu() / 16);
    return;
  }
  choice_ = AttentionKernels::kOwn;
  const bool by_default = choice == AttentionKernels::kCudnn;
  if (by_default && absl::IsUnimplemented(library.status())) return;
  LOG(WARNING) << "attention is by lorica's own kernels: "
               << library.status().message();
}

int64_t CudnnAttention::LongestOfPlans(int64_t longest) const {
  return choice_ == AttentionKernels::kOwn ? 0 : RoundedLongest(longest);
}

const CudnnAttention::Kept& CudnnAttention::Find(const SdpaShape& shape) {
  auto found = plans_.find(shape);
  if (found == plans_.end()) {
    if (plans_.size() >= kCapacity) {
      plans_.erase(std::min_element(
          plans_.begin(), plans_.end(), [](const auto& a, const auto& b) {
            return a.second.last_use < b.second.last_use;
          }));
    }
    auto plan = library_->Plan(shape);
    Kept kept;
    if (!plan.ok()) {
      VLOG(1) << Describe(shape)
              << " by lorica's own kernels: " << plan.status().message();
    } else if ((*plan)->workspace_bytes() > most_workspace_) {
      VLOG(1) << Describe(shape) << ": a workspace of "
              << (*plan)->workspace_bytes() << " bytes, more than "
              << most_workspace_;
      kept.too_large = true;
    } else {
      kept.plan = *std::move(plan);
    }
    found = plans_.emplace(shape, std::move(kept)).first;
  }
  found->second.last_use = ++uses_;
  return found->second;
}

std::shared_ptr<SdpaPlan> CudnnAttention::PlanFor(Call* call) {
  for (;;) {
    const Kept& kept = Find(call->shape);
    if (!kept.too_large || call->shape.records == 1) return kept.plan;
    call->shape.records /= 2;
    call->groups *= 2;
  }
}

const int32_t* CudnnAttention::Numbers(Queue* queue, const Call& call) {
  const SdpaShape& shape = call.shape;
  const int64_t groups = call.groups;
  std::vector<int32_t> numbers = NumbersOf(shape, groups, call.records);
  if (!IsRecorded(queue)) {
    return Upload(queue, shape.direction, std::move(numbers));
  }
  RecordTable table = {
      .name = {static_cast<int64_t>(TableKind::kLibrary),
               static_cast<int64_t>(shape.direction), shape.records, groups},
      .bytes = numbers.size() * sizeof(int32_t),
      .fill = [shape, groups](const ArrayView<Segment>& now, void* to) {
        const std::vector<int32_t> filled =
            NumbersOf(shape, groups, RecordsOf(now));
        std::memcpy(to, filled.data(), filled.size() * sizeof(int32_t));
      }};
  for (const int64_t stride : shape.row_strides) table.name.push_back(stride);
  return static_cast<const int32_t*>(
      RecordedTable(queue, table, call.segments));
}

// Layers of one step have the same records: what is there need not come again.
const int32_t* CudnnAttention::Upload(Queue* queue, Direction direction,
                                      std::vector<int32_t> numbers) {
  const bool forward = direction == Direction::kForward;
  Uploaded& there = uploaded_[forward ? 0 : 1];
  if (there.numbers == numbers) return there.data;
  const size_t bytes = numbers.size() * sizeof(int32_t);
  void* to = ScratchFor(
      queue,
      forward ? ScratchUse::kForwardRecords : ScratchUse::kBackwardRecords,
      bytes);
  Of(queue)->ring.CopyIn(to, numbers.data(), bytes, StreamOf(queue));
  there = {std::move(numbers), static_cast<const int32_t*>(to)};
  return there.data;
}

bool CudnnAttention::Run(Queue* queue, Call* call) {
  if (!call->taken) return false;
  const std::shared_ptr<SdpaPlan> plan = PlanFor(call);
  if (plan == nullptr) return false;
  if (IsRecorded(queue)) Of(queue)->recording->Keep(plan);
  const SdpaShape& shape = call->shape;
  const int32_t* numbers = Numbers(queue, *call);
  auto* padded = static_cast<float*>(ScratchFor(
      queue, ScratchUse::kPaddedStats,
      static_cast<size_t>(shape.records * shape.heads * shape.longest) *
          sizeof(float)));
  void* workspace = nullptr;
  if (plan->workspace_bytes() > 0) {
    workspace =
        ScratchFor(queue, ScratchUse::kWorkspace, plan->workspace_bytes());
  }
  for (int64_t group = 0; group < call->groups; ++group) {
    // Recorded work may have records there another time.
    const bool empty = group * shape.records >= std::ssize(call->records);
    if (empty && !IsRecorded(queue)) break;
    SdpaArrays arrays = call->Arrays(numbers);
    arrays.stats = padded;
    arrays.workspace = workspace;
    const PaddedStats stats = call->Stats(numbers, padded);
    if (shape.direction == Direction::kBackward) Pad(queue, call->lse, stats);
    const absl::Status status = plan->Run(arrays);
    CHECK(status.ok()) << Describe(shape) << " by " << plan->engine() << ": "
                       << status.message();
    if (shape.direction == Direction::kForward) Unpad(queue, stats, call->lse);
    numbers += NumbersAGroup(shape);
    ++calls_;
  }
  return true;
}

bool CudnnAttention::Forward(Queue* queue, const AttentionArgs& args) {
  if (choice_ == AttentionKernels::kOwn) return false;
  Call call(Direction::kForward, GradOrder::kFixed, args, MatricesOf(args));
  if (!Run(queue, &call)) return false;
  ZeroUncovered(queue, args);
  return true;
}

bool CudnnAttention::Backward(Queue* queue, const AttentionBackwardArgs& args) {
  if (choice_ == AttentionKernels::kOwn) return false;
  const GradOrder order = choice_ == AttentionKernels::kCudnnAnyOrder
                              ? GradOrder::kAny
                              : GradOrder::kFixed;
  Call call(Direction::kBackward, order, args.forward, MatricesOf(args));
  if (!Run(queue, &call)) return false;
  ZeroUncovered(queue, args);
  return true;
}

int64_t RoundedUp(int64_t value) {
  const auto power = static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(value, 1))));
  return power >= 4 && value <= power / 4 * 3 ? power / 4 * 3 : power;
}

}  // namespace lorica::cuda
