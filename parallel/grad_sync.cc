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

}  // namespace

GradSync::GradSync(absl::Span<const FlatSlice> slices, int64_t elements,
                   const Mesh& mesh)
    : elements_(elements), tensor_(&mesh.tensor()), data_(&mesh.data()) {
  std::map<std::vector<int>, std::vector<Range>> terms;
  for (const FlatSlice& slice : slices) {
    CHECK(0 <= slice.range.begin && slice.range.end <= elements) << slice.range;
    std::vector<int> holders = FirstHolders(slice.shard, tensor_->size());
    if (holders[tensor_->rank()] == tensor_->rank()) {
      counted_.push_back(slice.range);
    }
    if (slice.shard.layout == Layout::kInvariant) {
      invariant_.push_back(slice.range);
      continue;
    }
    if (NoneShare(holders)) continue;
    terms[std::move(holders)].push_back(slice.range);
  }
  counted_ = Join(std::move(counted_), slices);
  for (auto& [holders, ranges] : terms) {
    Communicator* group = tensor_;
    if (!AllShare(holders)) {
      subgroups_.push_back(
          tensor_->Split(holders[tensor_->rank()], tensor_->rank()));
      group = subgroups_.back().get();
    }
    shared_.push_back({group, Join(std::move(ranges), slices)});
  }
}

void GradSync::AddMicroBatch(Tensor* flat) {
  CHECK_EQ(flat->shape(), Shape{elements_});
  sum_.Add(ops::Convert(*flat, DType::kF32));
  ops::Fill(0.0f, flat);
}

void GradSync::Reduce(Tensor* flat) {
  CHECK_EQ(flat->shape(), Shape{elements_});
  const std::optional<Tensor> sum = sum_.Take();
  CHECK(sum.has_value()) << "a step without micro-batches";
  ops::ConvertInto(*sum, 1.0f, flat);
  data_->AllReduceSum(flat, Purpose::kAdapterGrad);
  for (const Shared& shared : shared_) SumShared(shared, *flat);
}

void GradSync::SumShared(const Shared& shared, const Tensor& flat) {
  if (shared.group->size() == 1) return;
  if (shared.ranges.size() == 1) {
    Tensor only = flat.Cols(shared.ranges[0]);
    shared.group->AllReduceSum(&only, Purpose::kAdapterGrad);
    return;
  }
  // Packed, so that scattered slices still make one sum.
  int64_t size = 0;
  for (const Range& range : shared.ranges) size += range.size();
  Tensor packed = Tensor::Empty(flat.device(), {size}, DType::kF32);
  int64_t begin = 0;
  for (const Range& range : shared.ranges) {
    Tensor part = packed.Cols({begin, begin + range.size()});
    ops::ConvertInto(flat.Cols(range), 1.0f, &part);
    begin += range.size();
  }
  shared.group->AllReduceSum(&packed, Purpose::kAdapterGrad);
  begin = 0;
  for (const Range& range : shared.ranges) {
    Tensor part = flat.Cols(range);
    ops::ConvertInto(packed.Cols({begin, begin + range.size()}), 1.0f, &part);
    begin += range.size();
  }
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

void GradSync::VerifyReplicas(absl::string_view what,
                              const Tensor& flat) const {
  CHECK_EQ(flat.shape(), Shape{elements_});
  const auto verify = [&](absl::Span<const Range> ranges, Communicator& group) {
    if (ranges.empty()) return;
    std::vector<Tensor> parts;
    for (const Range& range : ranges) parts.push_back(flat.Cols(range));
    lorica::VerifyReplicas(what, parts, group);
  };
  lorica::VerifyReplicas(what, {flat}, *data_);
  verify(invariant_, *tensor_);
  for (const Shared& shared : shared_) verify(shared.ranges, *shared.group);
}

}  // namespace lorica
