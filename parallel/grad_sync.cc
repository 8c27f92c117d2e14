#include "parallel/grad_sync.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "parallel/replicas.h"
#include "runtime/check.h"
#include "runtime/ops.h"

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

// A copy of the ranges, one after another.
Tensor Pack(const Tensor& flat, absl::Span<const Range> ranges,
            int64_t elements) {
  Tensor packed = Tensor::Empty(flat.device(), {elements}, DType::kF32);
  int64_t begin = 0;
  for (const Range& range : ranges) {
    Tensor part = packed.Cols({begin, begin + range.size()});
    ops::ConvertInto(flat.Cols(range), 1.0f, &part);
    begin += range.size();
  }
  return packed;
}

void Unpack(const Tensor& packed, absl::Span<const Range> ranges,
            Tensor* flat) {
  int64_t begin = 0;
  for (const Range& range : ranges) {
    Tensor part = flat->Cols(range);
    ops::ConvertInto(packed.Cols({begin, begin + range.size()}), 1.0f, &part);
    begin += range.size();
  }
}

bool Holds(const Bucket& bucket, const Range& range) {
  return std::any_of(bucket.begin(), bucket.end(), [&](const Range& part) {
    return part.begin <= range.begin && range.end <= part.end;
  });
}

}  // namespace

GradSync::GradSync(absl::Span<const FlatSlice> slices, int64_t elements,
                   const Mesh& mesh, std::vector<Bucket> buckets)
    : elements_(elements), tensor_(&mesh.tensor()), data_(&mesh.data()) {
  for (const FlatSlice& slice : slices) {
    CHECK(0 <= slice.range.begin && slice.range.end <= elements) << slice.range;
    const int rank = tensor_->rank();
    if (FirstHolder(slice.shard, rank) == rank) counted_.push_back(slice.range);
    if (slice.shard.layout == Layout::kInvariant) {
      invariant_.push_back(slice.range);
    }
  }
  counted_ = Join(std::move(counted_), slices);
  shared_ = SharedOf(slices);
  if (buckets.empty()) buckets.push_back({{0, elements}});
  std::vector<FlatSlice> left(slices.begin(), slices.end());
  std::erase_if(left, [](const FlatSlice& s) { return s.range.size() == 0; });
  int64_t places = 0;
  for (Bucket& bucket : buckets) {
    std::erase_if(left, [&](const FlatSlice& slice) {
      return Holds(bucket, slice.range);
    });
    Part& part = buckets_.emplace_back();
    for (const Range& range : bucket) part.elements += range.size();
    part.ranges = std::move(bucket);
    part.place = places;
    places +=
        (part.elements + kPlaceElements - 1) / kPlaceElements * kPlaceElements;
  }
  CHECK(left.empty()) << "no bucket holds the slice " << left.front().range;
}

// Groups are made in an order that all ranks share.
std::vector<GradSync::Shared> GradSync::SharedOf(
    absl::Span<const FlatSlice> slices) {
  std::map<std::vector<int>, std::vector<Range>> terms;
  for (const FlatSlice& slice : slices) {
    std::vector<int> holders = FirstHolders(slice.shard, tensor_->size());
    if (slice.shard.layout == Layout::kInvariant || NoneShare(holders)) {
      continue;
    }
    terms[std::move(holders)].push_back(slice.range);
  }
  std::vector<Shared> shared;
  for (auto& [holders, ranges] : terms) {
    Communicator* group = tensor_;
    if (!AllShare(holders)) {
      subgroups_.push_back(
          tensor_->Split(holders[tensor_->rank()], tensor_->rank()));
      group = subgroups_.back().get();
    }
    shared.push_back({group, Join(std::move(ranges), slices)});
  }
  return shared;
}

void GradSync::TakeSumMemory(Device* device) {
  const Part& last = buckets_.back();
  sum_memory_ = data_->CollectiveMemory(device, last.place + last.elements);
}

void GradSync::AddMicroBatch(Tensor* flat) {
  CHECK_EQ(flat->shape(), Shape{elements_});
  for (Part& part : buckets_) {
    if (part.sum.present()) continue;
    part.terms.Add(Pack(*flat, part.ranges, part.elements));
    for (const Range& range : part.ranges) {
      Tensor taken = flat->Cols(range);
      ops::Fill(0.0f, &taken);
    }
  }
}

void GradSync::Ready(int bucket, const Tensor& flat) {
  CHECK_EQ(flat.shape(), Shape{elements_});
  Part& part = buckets_[static_cast<size_t>(bucket)];
  CHECK(!part.sum.present()) << "bucket " << bucket << " is ready twice";
  part.terms.Add(Pack(flat, part.ranges, part.elements));
  Start(&part);
}

void GradSync::Start(Part* part) {
  std::optional<Tensor> sum = part->terms.Take();
  CHECK(sum.has_value()) << "a step without micro-batches";
  part->sum = *std::move(sum);
  if (sum_memory_.present()) {
    Tensor place =
        sum_memory_.Cols({part->place, part->place + part->elements});
    ops::ConvertInto(part->sum, 1.0f, &place);
    part->sum = std::move(place);
  }
  data_->StartAllReduceSum(&part->sum, Purpose::kAdapterGrad);
}

void GradSync::Reduce(Tensor* flat) {
  CHECK_EQ(flat->shape(), Shape{elements_});
  for (Part& part : buckets_) {
    if (!part.sum.present()) Start(&part);
  }
  data_->JoinSums(flat->device());
  for (Part& part : buckets_) {
    Unpack(part.sum, part.ranges, flat);
    part.sum = {};
  }
  for (const Shared& shared : shared_) SumShared(shared, flat);
}

// Packed, so that scattered slices still make one sum.
void GradSync::SumShared(const Shared& shared, Tensor* flat) {
  if (shared.group->size() == 1) return;
  if (shared.ranges.size() == 1) {
    Tensor only = flat->Cols(shared.ranges[0]);
    shared.group->AllReduceSum(&only, Purpose::kAdapterGrad);
    return;
  }
  int64_t size = 0;
  for (const Range& range : shared.ranges) size += range.size();
  Tensor terms = Pack(*flat, shared.ranges, size);
  shared.group->AllReduceSum(&terms, Purpose::kAdapterGrad);
  Unpack(terms, shared.ranges, flat);
}

double GradSync::SquaredNorm(const Tensor& flat) const {
  CHECK_EQ(flat.shape(), Shape{elements_});
  double norm = 0.0;
  for (const Range& range : counted_) {
    norm += ops::SquaredNorm(flat.Cols(range));
  }
  tensor_->AllReduceSum(absl::MakeSpan(&norm, 1), Purpose::kLoss);
  return norm;
}

absl::Status GradSync::VerifyReplicas(absl::string_view what,
                                      const Tensor& flat) const {
  CHECK_EQ(flat.shape(), Shape{elements_});
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
