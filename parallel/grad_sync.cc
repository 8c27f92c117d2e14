#include "parallel/grad_sync.h"

#include <algorithm>
#include <map>
#include <utility>

#include "parallel/replicas.h"
#include "runtime/check.h"

namespace lorica {
namespace {

// Buckets begin at multiples of so many elements in memory for sums.
constexpr int64_t kPlaceElements = 128;

std::vector<int> FirstHolders(const ShardSpec& spec, int ranks) {
  std::vector<int> holders(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    holders[rank] = FirstHolder(spec, rank);
  }
  return holders;
}

bool AllShare(absl::Span<const int> holders) {
  return std::all_of(holders.begin(), holders.end(),
                     [](int holder) { return holder == 0; });
}

bool NoneShare(absl::Span<const int> holders) {
  for (size_t rank = 0; rank < holders.size(); ++rank) {
    if (holders[rank] != static_cast<int>(rank)) return false;
  }
  return true;
}

// Joins ranges of `slices` that nothing but padding separates.
std::vector<Range> Join(std::vector<Range> ranges,
                        absl::Span<const FlatSlice> slices) {
  const auto occupied = [slices](int64_t begin, int64_t end) {
    return std::any_of(slices.begin(), slices.end(), [=](const FlatSlice& s) {
      return s.range.begin < end && s.range.end > begin;
    });
  };
  std::erase_if(ranges, [](const Range& range) { return range.size() == 0; });
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> joined;
  for (const Range& range : ranges) {
    if (!joined.empty() && !occupied(joined.back().end, range.begin)) {
      joined.back().end = range.end;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

int64_t ElementsOf(absl::Span<const Range> ranges) {
  int64_t elements = 0;
  for (const Range& range : ranges) elements += range.size();
  return elements;
}

bool Holds(const Bucket& bucket, const Range& range) {
  return std::any_of(bucket.begin(), bucket.end(), [&](const Range& part) {
    return part.begin <= range.begin && range.end <= part.end;
  });
}

void CheckHeld(absl::Span<const FlatSlice> slices,
               absl::Span<const Bucket> buckets) {
  for (const FlatSlice& slice : slices) {
    const auto holds = [&](const Bucket& b) { return Holds(b, slice.range); };
    CHECK(buckets.empty() || slice.range.size() == 0 ||
          std::any_of(buckets.begin(), buckets.end(), holds))
        << "no bucket holds the slice " << slice.range;
  }
}

}  // namespace

GradSync::Packed::Packed(const std::vector<Range>& ranges, const Tensor& grads,
                         Tensor array)
    : array_(std::move(array)) {
  if (!array_.present() && ranges.size() == 1) {
    array_ = grads.Cols(ranges[0]);
    return;
  }
  const int64_t elements = ElementsOf(ranges);
  if (!array_.present()) {
    array_ = Tensor::Empty(grads.device(), {elements}, DType::kF32);
  }
  CHECK_EQ(array_.shape(), Shape{elements});
  std::vector<ops::Piece> into;
  std::vector<ops::Piece> back;
  int64_t begin = 0;
  for (const Range& range : ranges) {
    const int64_t end = begin + range.size();
    into.push_back({.begin = range.begin, .to = array_.Cols({begin, end})});
    back.push_back({.begin = begin, .to = grads.Cols(range)});
    begin = end;
  }
  if (into.empty()) return;
  into_ = ops::MakePieceTable(std::move(into));
  back_ = ops::MakePieceTable(std::move(back));
}

void GradSync::Packed::Collect(const Tensor& grads) const {
  if (!into_.pieces.empty()) ops::ScatterPieces(grads, into_);
}

void GradSync::Packed::Spread() const {
  if (!back_.pieces.empty()) ops::ScatterPieces(array_, back_);
}

GradSync::GradSync(absl::Span<const FlatSlice> slices, Tensor grads,
                   int64_t micro_batches, const Mesh& mesh,
                   std::vector<Bucket> buckets)
    : grads_(std::move(grads)),
      micro_batches_(micro_batches),
      tensor_(&mesh.tensor()),
      data_(&mesh.data()),
      finish_(grads_.device()) {
  CHECK_GT(micro_batches, 0);
  for (int level = -1; level < LevelsOfTree(micro_batches); ++level) {
    adds_.emplace_back(grads_.device());
  }
  const int64_t elements = grads_.elements();
  for (const FlatSlice& slice : slices) {
    CHECK(0 <= slice.range.begin && slice.range.end <= elements) << slice.range;
    const int rank = tensor_->rank();
    if (FirstHolder(slice.shard, rank) == rank) counted_.push_back(slice.range);
    if (slice.shard.layout == Layout::kInvariant) {
      invariant_.push_back(slice.range);
    }
  }
  counted_ = Join(std::move(counted_), slices);
  norms_ = Tensor::Empty(grads_.device(), {std::ssize(counted_)}, DType::kF64);
  shared_ = SharedOf(slices);
  CheckHeld(slices, buckets);
  for (Bucket& bucket : buckets) bucket = Join(std::move(bucket), slices);
  if (buckets.empty()) buckets.push_back({{0, elements}});
  MakeParts(buckets);
}

// Memory from which the library of collectives sums without copies of its own,
// where it has such, is taken for all buckets at once.
void GradSync::MakeParts(absl::Span<const Bucket> buckets) {
  std::vector<Range> places;
  int64_t end = 0;
  for (const Bucket& bucket : buckets) {
    const int64_t begin =
        (end + kPlaceElements - 1) / kPlaceElements * kPlaceElements;
    end = begin + ElementsOf(bucket);
    places.push_back({begin, end});
  }
  const Tensor memory = data_->CollectiveMemory(grads_.device(), end);
  for (size_t i = 0; i < places.size(); ++i) {
    const Tensor place = memory.present() ? memory.Cols(places[i]) : Tensor();
    Part part = {.sum = Packed(buckets[i], grads_, place),
                 .gather = RecordedWork(grads_.device())};
    for (int level = 0; level < LevelsOfTree(micro_batches_); ++level) {
      part.partial.push_back(
          Tensor::Empty(grads_.device(), {places[i].size()}, DType::kF32));
    }
    parts_.push_back(std::move(part));
  }
}

// Groups are made in an order that all ranks share.
std::vector<GradSync::Shared> GradSync::SharedOf(
    absl::Span<const FlatSlice> slices) {
  std::map<std::vector<int>, std::vector<Range>> ranges_of;
  for (const FlatSlice& slice : slices) {
    std::vector<int> holders = FirstHolders(slice.shard, tensor_->size());
    if (slice.shard.layout == Layout::kInvariant || NoneShare(holders)) {
      continue;
    }
    ranges_of[std::move(holders)].push_back(slice.range);
  }
  std::vector<Shared> shared;
  for (auto& [holders, ranges] : ranges_of) {
    Communicator* group = tensor_;
    if (!AllShare(holders)) {
      subgroups_.push_back(
          tensor_->Split(holders[tensor_->rank()], tensor_->rank()));
      group = subgroups_.back().get();
    }
    ranges = Join(std::move(ranges), slices);
    if (group->size() == 1 || ranges.empty()) continue;
    Packed terms(ranges, grads_, {});
    shared.push_back({group, std::move(ranges), std::move(terms)});
  }
  return shared;
}

void GradSync::Gather(const TreeStep& step, Part* part) {
  part->sum.Collect(grads_);
  for (size_t level = 0; level < part->partial.size(); ++level) {
    if ((step.joined >> level & 1) == 0) continue;
    ops::AddInto(part->partial[level], part->sum.array());
  }
}

void GradSync::Record(const WorkRecorder& by) {
  Device* const device = grads_.device();
  for (RecordedWork& add : adds_) add = RecordedWork(device, by);
  for (Part& part : parts_) part.gather = RecordedWork(device, by);
  CHECK(by.group == tensor_);
  if (subgroups_.empty()) finish_ = RecordedWork(device, by);
}

bool GradSync::Moves(const TreeStep& step, const Part& part) {
  return step != TreeStep() || !part.sum.in_place();
}

// Steps to one level are the same work.
void GradSync::AddMicroBatch() {
  CHECK_LT(added_, micro_batches_) << "more micro-batches than a step has";
  const TreeStep step = StepOfTree(added_, micro_batches_);
  ++added_;
  const bool started = parts_.front().started;
  bool moves = false;
  for (const Part& part : parts_) {
    CHECK_EQ(part.started, started) << "some buckets were ready, others not";
    moves = moves || Moves(step, part);
  }
  if (started || !moves) return;
  adds_[static_cast<size_t>(step.level + 1)].Do([&] { Add(step); });
}

void GradSync::Add(const TreeStep& step) {
  for (Part& part : parts_) {
    Gather(step, &part);
    if (step.level < 0) continue;
    ops::ConvertInto(*part.sum.array(), 1.0f,
                     &part.partial[static_cast<size_t>(step.level)]);
  }
  if (step.level >= 0) ops::Fill(0.0f, &grads_);
}

void GradSync::Ready(int bucket) {
  CHECK_EQ(added_ + 1, micro_batches_) << "more is added to a bucket";
  Part& part = parts_[static_cast<size_t>(bucket)];
  CHECK(!part.started) << "bucket " << bucket << " is ready twice";
  const TreeStep step = StepOfTree(added_, micro_batches_);
  if (Moves(step, part)) part.gather.Do([&] { Gather(step, &part); });
  Start(&part);
}

void GradSync::Start(Part* part) {
  data_->StartAllReduceSum(part->sum.array(), Purpose::kAdapterGrad);
  part->started = true;
}

void GradSync::Reduce() {
  CHECK_EQ(added_, micro_batches_) << "micro-batches are missing";
  for (Part& part : parts_) {
    if (!part.started) Start(&part);
  }
  data_->JoinSums(grads_.device());
  finish_.Do([this] { Finish(); });
  for (Part& part : parts_) part.started = false;
  added_ = 0;
}

void GradSync::Finish() {
  for (Part& part : parts_) part.sum.Spread();
  for (Shared& shared : shared_) SumShared(&shared);
  for (size_t i = 0; i < counted_.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    Tensor norm = norms_.Cols({at, at + 1});
    ops::SquaredNorm(grads_.Cols(counted_[i]), &norm);
  }
}

// Packed, so that scattered slices still make one sum.
void GradSync::SumShared(Shared* shared) {
  shared->terms.Collect(grads_);
  shared->group->AllReduceSum(shared->terms.array(), Purpose::kAdapterGrad);
  shared->terms.Spread();
}

double GradSync::SquaredNorm() const {
  double norm = 0.0;
  for (const double part : norms_.ToHost<double>()) norm += part;
  tensor_->AllReduceSum(absl::MakeSpan(&norm, 1), Purpose::kLoss);
  return norm;
}

absl::Status GradSync::VerifyReplicas(absl::string_view what,
                                      const Tensor& flat) const {
  CHECK_EQ(flat.shape(), grads_.shape());
  absl::Status first = lorica::VerifyReplicas(what, {flat}, *data_);
  // The other groups are asked in any case: their ranks may have seen nothing.
  const auto verify = [&](absl::Span<const Range> ranges, Communicator& group) {
    if (ranges.empty()) return;
    std::vector<Tensor> parts;
    for (const Range& range : ranges) parts.push_back(flat.Cols(range));
    first.Update(lorica::VerifyReplicas(what, parts, group));
  };
  verify(invariant_, *tensor_);
  for (const Shared& shared : shared_) verify(shared.ranges, *shared.group);
  return first;
}

}  // namespace lorica
