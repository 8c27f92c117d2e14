// Attention of the CUDA table where a library computes it: what the library is
// told of records, offsets and statistics, in every order that streams are free
// to take, and what recordings of it do. The library is a stand-in that reads
// what it is told as cuDNN is documented to; cudnn/sdpa_plans_test.cc has the
// real one.
#include "runtime/cuda/cudnn_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/allocator.h"
#include "runtime/cuda/queue.h"
#include "runtime/ops.h"
#include "runtime/recording.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

using cuda::CudnnAttention;
using cuda_fakes::Policy;
using testing::IsEmpty;

constexpr size_t kWorkspaceBytes = 1000;

std::unique_ptr<Device> OpenFakeGpu() {
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenCudaDevice({.allocation = Allocation::kDirect});
  if (device.ok()) return *std::move(device);
  ADD_FAILURE() << std::string(device.status().message());
  return nullptr;
}

CudnnAttention& AttentionOf(const Device& device) {
  return *cuda::Of(device.queue())->attention;
}

void ExpectMatch(const OpCase& op_case, Device* device) {
  SCOPED_TRACE(op_case.entry + "/" + op_case.name);
  const std::vector<OpExpectation> expected = op_case.expect();
  const PreparedOp op = op_case.prepare(device);
  op.run();
  ASSERT_EQ(op.results.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
  }
}

// The cases of attention and its gradient with these names.
std::vector<OpCase> CasesNamed(const std::set<std::string>& names) {
  std::vector<OpCase> cases;
  for (OpCase& op_case : OpCases()) {
    const bool attention = op_case.entry.rfind("attention", 0) == 0;
    if (attention && names.count(op_case.name) > 0) {
      cases.push_back(std::move(op_case));
    }
  }
  EXPECT_EQ(cases.size(), 2 * names.size());
  return cases;
}

// How many of the cases the library computes; all must match.
int64_t CallsFor(const std::set<std::string>& names, AttentionKernels kernels) {
  const std::unique_ptr<Device> device = OpenFakeGpu();
  AttentionOf(*device).Choose(kernels);
  for (const OpCase& op_case : CasesNamed(names)) {
    ExpectMatch(op_case, device.get());
  }
  const int64_t calls = AttentionOf(*device).calls();
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  return calls;
}

class CudnnAttentionTest : public testing::TestWithParam<Policy> {};

INSTANTIATE_TEST_SUITE_P(Policies, CudnnAttentionTest,
                         testing::ValuesIn(cuda_fakes::kPolicies),
                         testing::PrintToStringParamName());

// One after another on one device, so that records, statistics and workspace
// of one lie where those of the last were.
TEST_P(CudnnAttentionTest, MatchesItsReferenceWhateverTheRecords) {
  cuda_fakes::Reset(
      {.policy = GetParam(), .sdpa_workspace_bytes = kWorkspaceBytes});
  const std::set<std::string> names = {"OneTokenBf16", "GroupsOfThreeBf16",
                                       "PackedRecordsBf16", "HeadOf128Bf16",
                                       "RowsOfNoSegmentBf16"};
  EXPECT_EQ(CallsFor(names, AttentionKernels::kCudnn), 10);
}

TEST(CudnnAttentionChoiceTest, OtherShapesAreComputedByOwnKernels) {
  cuda_fakes::Reset({.sdpa_workspace_bytes = kWorkspaceBytes});
  const std::set<std::string> names = {"OneTokenF32", "HeadOfTwoBf16",
                                       "OneTokenBf16Strided", "DecodeFourBf16",
                                       "ReversedSegmentsBf16"};
  EXPECT_EQ(CallsFor(names, AttentionKernels::kCudnn), 0);
}

TEST(CudnnAttentionChoiceTest, OwnKernelsCanBeChosen) {
  cuda_fakes::Reset({.sdpa_workspace_bytes = kWorkspaceBytes});
  EXPECT_EQ(CallsFor({"OneTokenBf16"}, AttentionKernels::kOwn), 0);
}

TEST(CudnnAttentionChoiceTest, WithoutTheLibraryOwnKernelsServe) {
  cuda_fakes::Reset({});
  EXPECT_EQ(CallsFor({"OneTokenBf16"}, AttentionKernels::kCudnn), 0);
}

TEST(CudnnAttentionChoiceTest, APlanThatWantsTooMuchMemoryIsNotUsed) {
  cuda_fakes::Reset(
      {.sdpa_workspace_bytes = CudnnAttention::kMaxWorkspaceBytes + 1});
  EXPECT_EQ(CallsFor({"OneTokenBf16"}, AttentionKernels::kCudnn), 0);
}

// There the library has gradients in any order alone.
TEST(CudnnAttentionChoiceTest, OrderOfSumsIsFixedUnlessChosenOtherwise) {
  cuda_fakes::Reset(
      {.compute_major = 8, .sdpa_workspace_bytes = kWorkspaceBytes});
  EXPECT_EQ(CallsFor({"OneTokenBf16"}, AttentionKernels::kCudnn), 1);
  EXPECT_EQ(CallsFor({"OneTokenBf16"}, AttentionKernels::kCudnnAnyOrder), 2);
}

// Queries, keys and values as slices of one matrix, or in matrices of their
// own.
class Rows {
 public:
  static constexpr int64_t kTokens = 150;
  static constexpr int64_t kHeadDim = 16;
  static constexpr int64_t kQueryCols = 4 * kHeadDim;
  static constexpr int64_t kKeyCols = 2 * kHeadDim;

  explicit Rows(Device* device) {
    const int64_t cols = kQueryCols + 2 * kKeyCols;
    std::vector<BFloat16> values;
    for (int64_t i = 0; i < kTokens * cols; ++i) {
      values.emplace_back(static_cast<float>(i * 37 % 101 - 50) / 32.0f);
    }
    const Tensor whole =
        Tensor::FromHost<BFloat16>(device, {kTokens, cols}, values);
    q_ = whole.Cols({0, kQueryCols});
    k_ = whole.Cols({kQueryCols, kQueryCols + kKeyCols});
    v_ = whole.Cols({kQueryCols + kKeyCols, cols});
  }
  Rows Apart() const {
    Rows rows = *this;
    for (Tensor* slice : {&rows.q_, &rows.k_, &rows.v_}) {
      Tensor copy = Tensor::Empty(slice->device(), {kTokens, slice->cols()},
                                  DType::kBF16);
      ops::ConvertInto(*slice, 1.0f, &copy);
      *slice = copy;
    }
    return rows;
  }
  ops::AttentionResult Attend(const std::vector<Segment>& segments) const {
    return ops::Attention(q_, k_, v_, segments, kShape);
  }
  // With the queries as the output's gradient.
  ops::AttentionGrads Gradients(const ops::AttentionResult& result,
                                const std::vector<Segment>& segments) const {
    return ops::AttentionBackward(q_, q_, k_, v_, result, segments, kShape);
  }

 private:
  static constexpr ops::AttentionShape kShape = {.head_dim = kHeadDim,
                                                 .scale = 0.25f};

  Tensor q_;
  Tensor k_;
  Tensor v_;
};

Segment Record(int64_t first, int64_t tokens) {
  return {first, tokens, first, tokens};
}

TEST_P(CudnnAttentionTest, RecordsThatChangeAreToldAnew) {
  cuda_fakes::Reset(
      {.policy = GetParam(), .sdpa_workspace_bytes = kWorkspaceBytes});
  const std::unique_ptr<Device> device = OpenFakeGpu();
  const Rows rows(device.get());
  const std::vector<Segment> one = {Record(0, 70), Record(70, 80)};
  const std::vector<Segment> other = {Record(0, 90), Record(90, 60)};
  const auto first = rows.Attend(one);
  const auto second = rows.Attend(other);
  const auto again = rows.Attend(one);
  EXPECT_NE(second.lse.ToFloats(), first.lse.ToFloats());
  EXPECT_EQ(again.lse.ToFloats(), first.lse.ToFloats());
  EXPECT_EQ(again.out.ToFloats(), first.out.ToFloats());
  EXPECT_EQ(AttentionOf(*device).calls(), 3);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// A sixteenth of the memory serves two slots at a time.
TEST_P(CudnnAttentionTest, RecordsThatAreTooManyAtATimeAreTakenInGroups) {
  constexpr size_t kSlotBytes = 3 << 18;
  const std::vector<Segment> segments = {Record(0, 40), Record(40, 30),
                                         Record(70, 20), Record(95, 30),
                                         Record(130, 20)};
  std::vector<std::vector<float>> values;
  for (const size_t slots : {8, 2}) {
    cuda_fakes::Reset({.policy = GetParam(),
                       .memory_bytes = 16 * slots * kSlotBytes,
                       .sdpa_workspace_bytes = kSlotBytes});
    const std::unique_ptr<Device> device = OpenFakeGpu();
    const Rows rows(device.get());
    const auto result = rows.Attend(segments);
    const auto grads = rows.Gradients(result, segments);
    for (const Tensor& t :
         {result.out, result.lse, grads.dq, grads.dk, grads.dv}) {
      values.push_back(t.ToFloats());
    }
    EXPECT_EQ(AttentionOf(*device).calls(), slots == 8 ? 2 : 6);
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  }
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(values[i + 5], values[i]) << i;
}

TEST(CudnnAttentionRowsTest, SlicesOfAMatrixHaveTheBitsOfMatricesOfTheirOwn) {
  cuda_fakes::Reset({.sdpa_workspace_bytes = kWorkspaceBytes});
  const std::unique_ptr<Device> device = OpenFakeGpu();
  const std::vector<Segment> segments = {Record(0, 70), Record(75, 70)};
  const Rows slices(device.get());
  const Rows apart = slices.Apart();
  const auto expected = apart.Attend(segments);
  const auto got = slices.Attend(segments);
  EXPECT_EQ(got.out.ToFloats(), expected.out.ToFloats());
  EXPECT_EQ(got.lse.ToFloats(), expected.lse.ToFloats());
  const auto expected_grads = apart.Gradients(expected, segments);
  const auto got_grads = slices.Gradients(got, segments);
  EXPECT_EQ(got_grads.dq.ToFloats(), expected_grads.dq.ToFloats());
  EXPECT_EQ(got_grads.dk.ToFloats(), expected_grads.dk.ToFloats());
  EXPECT_EQ(got_grads.dv.ToFloats(), expected_grads.dv.ToFloats());
  EXPECT_EQ(AttentionOf(*device).calls(), 4);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// Records of one token each and another of the rest, which comes first or last.
std::vector<Segment> ManyRecords(int64_t count, bool rest_first) {
  const int64_t rest = Rows::kTokens - count + 1;
  std::vector<Segment> records;
  int64_t first = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool is_rest = i == (rest_first ? 0 : count - 1);
    records.push_back(Record(first, is_rest ? rest : 1));
    first += records.back().num_queries;
  }
  return records;
}

// Out, lse, dq, dk and dv of some rows, in memory that stays.
struct Computed {
  explicit Computed(Device* device) {
    const auto add = [&](int64_t rows, int64_t cols, DType dtype) {
      results.push_back(Tensor::Zeros(device, {rows, cols}, dtype));
    };
    add(Rows::kTokens, Rows::kQueryCols, DType::kBF16);
    add(Rows::kQueryCols / Rows::kHeadDim, Rows::kTokens, DType::kF32);
    add(Rows::kTokens, Rows::kQueryCols, DType::kBF16);
    add(Rows::kTokens, Rows::kKeyCols, DType::kBF16);
    add(Rows::kTokens, Rows::kKeyCols, DType::kBF16);
  }
  void Compute(const Rows& rows, const std::vector<Segment>& segments) {
    const ops::AttentionResult result = rows.Attend(segments);
    const auto [dq, dk, dv] = rows.Gradients(result, segments);
    const Tensor from[] = {result.out, result.lse, dq, dk, dv};
    for (size_t i = 0; i < results.size(); ++i) {
      ops::ConvertInto(from[i], 1.0f, &results[i]);
    }
  }
  std::vector<std::vector<float>> Values() const {
    std::vector<std::vector<float>> values;
    for (const Tensor& result : results) values.push_back(result.ToFloats());
    return values;
  }

  std::vector<Tensor> results;
};

ArrayView<Segment> ArrayOf(const std::vector<Segment>& segments) {
  return {segments.data(), std::ssize(segments)};
}

// More than the arguments of a kernel hold, and in the end more than the
// library takes at a time.
TEST(RecordedAttentionTest, OfManyRecordsComputesThoseOfTheReplay) {
  const std::vector<Segment> one = ManyRecords(65, false);
  const std::vector<Segment> other = ManyRecords(66, true);
  const struct {
    AttentionKernels kernels;
    size_t slot_bytes;
    int64_t calls;
  } cases[] = {{AttentionKernels::kOwn, kWorkspaceBytes, 0},
               {AttentionKernels::kCudnn, kWorkspaceBytes, 6},
               {AttentionKernels::kCudnn, size_t{600} << 10, 12}};
  for (const auto& [kernels, slot_bytes, calls] : cases) {
    cuda_fakes::Reset({.sdpa_workspace_bytes = slot_bytes});
    const std::unique_ptr<Device> device = OpenFakeGpu();
    AttentionOf(*device).Choose(kernels);
    const Rows rows(device.get());
    Computed computed(device.get());
    computed.Compute(rows, other);
    const auto expected = computed.Values();
    Recorder* recorder = device->backend().recorder(device->queue());
    ASSERT_FALSE(recorder->Fixed(ArrayOf(one)).empty());
    ASSERT_EQ(recorder->Fixed(ArrayOf(one)), recorder->Fixed(ArrayOf(other)));
    Allocator memory(&device->backend(), device->queue(), Allocation::kPool);
    Allocator::Plan plan;
    const std::unique_ptr<Recording> recording = recorder->New();
    for (const auto phase :
         {Recording::Phase::kRehearsal, Recording::Phase::kRecording}) {
      const Device::Scope scope(device.get(), &memory);
      memory.BeginPlan(&plan);
      recording->Begin(phase);
      computed.Compute(rows, one);
      recording->End();
      memory.EndPlan();
    }
    recording->Replay(0, ArrayOf(other));
    EXPECT_EQ(computed.Values(), expected);
    EXPECT_EQ(AttentionOf(*device).calls(), calls);
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  }
}

TEST(RecordedAttentionTest, NeedsEveryRowInARecord) {
  cuda_fakes::Reset({});
  const std::unique_ptr<Device> device = OpenFakeGpu();
  const Recorder* recorder = device->backend().recorder(device->queue());
  const auto fixed = [&](const std::vector<Segment>& segments) {
    return recorder->Fixed(ArrayOf(segments));
  };
  EXPECT_EQ(fixed({Record(0, 70), Record(70, 80)}),
            fixed({Record(0, 1), Record(1, 149)}));
  EXPECT_NE(fixed({Record(0, 70), Record(70, 80)}),
            fixed({Record(0, 70), Record(70, 79)}));
  EXPECT_THAT(fixed({Record(0, 70), Record(71, 79)}), IsEmpty());
  EXPECT_THAT(fixed({Record(1, 70), Record(71, 79)}), IsEmpty());
  EXPECT_THAT(fixed({Record(0, 70), {70, 80, 71, 80}}), IsEmpty());
  EXPECT_THAT(fixed({Record(0, 70), Record(70, 0), Record(70, 80)}), IsEmpty());
}

TEST(CudnnAttentionPlansTest, SimilarRecordsShareAPlan) {
  cuda_fakes::Reset({.sdpa_workspace_bytes = kWorkspaceBytes});
  const std::unique_ptr<Device> device = OpenFakeGpu();
  const Rows rows(device.get());
  rows.Attend({Record(0, 70), Record(70, 80)});
  rows.Attend({Record(0, 95), Record(95, 2)});
  EXPECT_EQ(AttentionOf(*device).plans(), 1u);
  rows.Attend({Record(0, 70), Record(70, 70), Record(140, 10)});
  EXPECT_EQ(AttentionOf(*device).plans(), 2u);
  rows.Attend({Record(0, 70), Record(70, 30), Record(100, 20), Record(120, 9)});
  EXPECT_EQ(AttentionOf(*device).plans(), 2u);
  rows.Attend({Record(0, 97), Record(97, 2)});
  EXPECT_EQ(AttentionOf(*device).plans(), 3u);
}

TEST(CudnnAttentionPlansTest, SizesAreRoundedUpByHalfAtMost) {
  for (int64_t value = 1; value < 5000; ++value) {
    const int64_t rounded = cuda::RoundedUp(value);
    EXPECT_GE(rounded, value);
    EXPECT_LT(2 * rounded, 3 * value + 2);
    EXPECT_EQ(cuda::RoundedUp(rounded), rounded);
  }
}

}  // namespace
}  // namespace lorica
