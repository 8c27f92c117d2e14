// The host side of the CUDA table on the stand-ins for the runtime and
// cuBLASLt: products, memory and copies, in every order that streams are free
// to take. The kernels by themselves are kernels_test's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/cuda/host_ring.h"
#include "runtime/cuda/queue.h"
#include "runtime/ops.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/op_cases.h"
#include "tests/support/operands.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::IsEmpty;

std::unique_ptr<Device> OpenFakeGpu(Allocation allocation) {
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenCudaDevice({.allocation = allocation});
  if (device.ok()) return *std::move(device);
  ADD_FAILURE() << std::string(device.status().message());
  return nullptr;
}

class CudaBackendTest : public testing::TestWithParam<Policy> {
 protected:
  void SetUp() override { cuda_fakes::Reset({.policy = GetParam()}); }
  void TearDown() override {
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
    EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
  }
};

INSTANTIATE_TEST_SUITE_P(Policies, CudaBackendTest,
                         testing::ValuesIn(cuda_fakes::kPolicies),
                         testing::PrintToStringParamName());

TEST(CudaProductsTest, MatchTheirReferences) {
  cuda_fakes::Reset({});
  const std::set<std::string> entries = {"matmul", "lora_forward",
                                         "lora_backward", "squared_norm"};
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
  int cases = 0;
  for (const OpCase& op_case : OpCases()) {
    if (entries.count(op_case.entry) == 0) continue;
    SCOPED_TRACE(op_case.entry + "/" + op_case.name);
    const std::vector<OpExpectation> expected = op_case.expect();
    const PreparedOp op = op_case.prepare(device.get());
    op.run();
    ASSERT_EQ(op.results.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
    }
    ++cases;
  }
  EXPECT_GT(cases, 20);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// 257 is no number of BF16: 256 + 1 stays 256 where the frozen product is
// rounded before the adapter's 1 is added.
TEST(CudaAdapterTest, IsAddedBeforeTheFrozenProductIsRounded) {
  cuda_fakes::Reset({});
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
  const auto matrix = [&](Shape shape, const std::vector<float>& values) {
    return ops::Convert(Tensor::FromHost<float>(device.get(), shape, values),
                        DType::kBF16);
  };
  const Tensor x = matrix({1, 2}, {256, 1});
  const Tensor a = matrix({1, 2}, {0, 1});
  const Tensor db = Tensor::Zeros(device.get(), {1, 1}, DType::kF32);
  const std::vector<ops::LinearPart> parts = {{.weight = matrix({1, 2}, {1, 1}),
                                               .b = matrix({1, 1}, {1}),
                                               .db = db,
                                               .scale = 1.0f}};
  const ops::LoraForwardResult forward = ops::LoraForward(x, x, a, parts);
  EXPECT_EQ(forward.y[0].ToFloats(), std::vector<float>{258});

  Tensor da = Tensor::Zeros(device.get(), {1, 2}, DType::kF32);
  const ops::LoraBackwardResult backward =
      ops::LoraBackward({{matrix({1, 1}, {2})}}, x, forward.xa, a, &da, parts,
                        ops::InputGrad::kWhole);
  EXPECT_EQ(backward.dx.ToFloats(), (std::vector<float>{2, 4}));
  const auto& sum = cuda::Of(device->queue())
                        ->scratch[static_cast<size_t>(cuda::ScratchUse::kSum)];
  EXPECT_EQ(sum, nullptr) << "one part needs no sum in F32";
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// A layer of two adapted parts and a frozen one, all numbers integers that sums
// in F32 keep exactly, so that each rounding shows. The last ranks of all may
// be spare.
struct IntegerLayer {
  static constexpr int64_t kTokens = 21;
  static constexpr int64_t kInputs = 72;
  static constexpr Range kOutputs[] = {{0, 72}, {72, 80}, {80, 96}};
  static constexpr Range kRanks[] = {{0, 8}, {0, 0}, {8, 16}};
  static constexpr int64_t kAllOutputs = 96;
  static constexpr int64_t kAllRanks = 16;

  static HostMatrix Integers(const char* name, int64_t rows, int64_t cols,
                             int32_t most) {
    const std::vector<int32_t> values =
        RandomInts(name, rows * cols, {-most, most + 1});
    HostMatrix matrix(rows, cols);
    std::copy(values.begin(), values.end(), matrix.values.begin());
    return matrix;
  }

  HostMatrix x = Integers("x", kTokens, kInputs, 15);
  HostMatrix w = Integers("w", kAllOutputs, kInputs, 100);
  HostMatrix a = Integers("a", kAllRanks, kInputs, 8);
  HostMatrix b = HostMatrix(kAllOutputs, kAllRanks);  // Zero between parts.
  HostMatrix dy = Integers("dy", kTokens, kAllOutputs, 15);

  explicit IntegerLayer(int64_t spare) {
    for (const size_t p : {0u, 2u}) {
      Put(Integers("b", kOutputs[p].size(), kRanks[p].size(), 50),
          kOutputs[p].begin, kRanks[p].begin, &b);
    }
    Put(HostMatrix(spare, kInputs), kAllRanks - spare, 0, &a);
    Put(HostMatrix(kAllOutputs, spare), 0, kAllRanks - spare, &b);
  }
};

// The matrix, rounded once, as the device must have it.
std::vector<float> Bf16(const HostMatrix& exact) {
  const HostMatrix rounded = RoundTo(DType::kBF16, exact);
  return {rounded.values.begin(), rounded.values.end()};
}

// A device's array in which a result has its place.
struct Surroundings {
  static constexpr int64_t kBeyond = 8;

  // `content` with a row and columns beyond it that nobody may read.
  Surroundings(Device* device, const HostMatrix& content)
      : before(Unreadable(content.rows + 1, content.cols + kBeyond)) {
    Put(content, 0, 0, &before);
    whole = Upload(device, before, DType::kBF16);
  }
  Tensor At(Range rows, Range cols) const {
    return whole.Rows(rows).Cols(cols);
  }
  // All but these columns of the content's rows is as before.
  void ExpectUntouchedBut(Range cols) const {
    const std::vector<float> after = whole.ToFloats();
    for (int64_t r = 0; r < before.rows; ++r) {
      for (int64_t c = 0; c < before.cols; ++c) {
        if (r + 1 < before.rows && cols.begin <= c && c < cols.end) continue;
        const double now = after[static_cast<size_t>(r * before.cols + c)];
        EXPECT_TRUE(now == before(r, c) ||
                    (std::isnan(now) && std::isnan(before(r, c))))
            << "[" << r << ", " << c << "] is " << now;
      }
    }
  }

  HostMatrix before;
  Tensor whole;
};

// By the number of spare ranks.
class CudaBorderTest : public testing::TestWithParam<int64_t> {};

INSTANTIATE_TEST_SUITE_P(Spare, CudaBorderTest, testing::Values(0, 5),
                         testing::PrintToStringParamName());

// Forward: xa and y. Backward: dxa and db of two parts, da and dx.
TEST_P(CudaBorderTest, IsOneProductEachWayRoundedOnce) {
  using L = IntegerLayer;
  cuda_fakes::Reset({});
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
  const int64_t spare = GetParam();
  const L layer(spare);
  const auto beside = [](const HostMatrix& left, int64_t room) {
    HostMatrix whole = Unreadable(left.rows, left.cols + room);
    Put(left, 0, 0, &whole);
    return whole;
  };
  const Range tokens = {0, L::kTokens};
  const Range inputs = {0, L::kInputs};
  const Range ranks = {L::kInputs, L::kInputs + L::kAllRanks};
  const Range grad_ranks = {L::kAllOutputs, L::kAllOutputs + L::kAllRanks};
  HostMatrix bordered = Unreadable(grad_ranks.end, ranks.end);
  Put(layer.w, 0, 0, &bordered);
  Put(layer.b, 0, ranks.begin, &bordered);
  Put(layer.a, grad_ranks.begin, 0, &bordered);
  const Surroundings m(device.get(), bordered);
  const Surroundings x(device.get(), beside(layer.x, L::kAllRanks));
  const Surroundings y(device.get(), Unreadable(L::kTokens, L::kAllOutputs));
  const Surroundings dy(device.get(), beside(layer.dy, L::kAllRanks));
  const Surroundings dx(device.get(), Unreadable(L::kTokens, L::kInputs));
  const Tensor a = m.At(grad_ranks, inputs);
  const Tensor da = Tensor::Zeros(
      device.get(), {L::kAllRanks - spare, L::kInputs}, DType::kF32);
  std::vector<Tensor> db;
  std::vector<LinearPart> forward, backward;
  for (size_t p = 0; p < std::size(L::kOutputs); ++p) {
    LinearPart part = {.weight = m.At(L::kOutputs[p], inputs).view(),
                       .y = y.At(tokens, L::kOutputs[p]).view(),
                       .first_rank = L::kRanks[p].begin,
                       .scale = 1.0f};
    if (L::kRanks[p].size() > 0) {
      part.b = m.At(L::kOutputs[p], {ranks.begin + L::kRanks[p].begin,
                                     ranks.begin + L::kRanks[p].end})
                   .view();
      const int64_t ranks_of_db =
          std::min(L::kRanks[p].end, L::kAllRanks - spare) - L::kRanks[p].begin;
      db.push_back(Tensor::Zeros(
          device.get(), {L::kOutputs[p].size(), ranks_of_db}, DType::kF32));
      part.db = db.back().view();
    }
    forward.push_back(part);
    part.y = dy.At(tokens, L::kOutputs[p]).view();
    backward.push_back(part);
  }
  const Backend& table = device->backend();
  const int64_t before = cuda_fakes::Launches();
  table.lora_forward(device->queue(), {.x = x.At(tokens, inputs).view(),
                                       .adapter_x = x.At(tokens, inputs).view(),
                                       .a = a.view(),
                                       .xa = x.At(tokens, ranks).view(),
                                       .parts = {forward.data(), 3}});
  EXPECT_EQ(cuda_fakes::Launches() - before, 2);
  using reference::Matmul;
  using reference::Sum;
  const HostMatrix xa =
      RoundTo(DType::kBF16, Matmul(MatmulForm::kNT, layer.x, layer.a));
  EXPECT_EQ(x.At(tokens, ranks).ToFloats(), Bf16(xa));
  EXPECT_EQ(y.At(tokens, {0, L::kAllOutputs}).ToFloats(),
            Bf16(Sum(Matmul(MatmulForm::kNT, layer.x, layer.w),
                     Matmul(MatmulForm::kNT, xa, layer.b))));

  table.lora_backward(device->queue(),
                      {.adapter_x = x.At(tokens, inputs).view(),
                       .xa = x.At(tokens, ranks).view(),
                       .a = a.view(),
                       .da = da.view(),
                       .dxa = dy.At(tokens, grad_ranks).view(),
                       .dx = dx.At(tokens, inputs).view(),
                       .parts = {backward.data(), 3}});
  EXPECT_EQ(cuda_fakes::Launches() - before, 2 + 6);
  const HostMatrix dxa =
      RoundTo(DType::kBF16, Matmul(MatmulForm::kNN, layer.dy, layer.b));
  EXPECT_EQ(dy.At(tokens, grad_ranks).ToFloats(), Bf16(dxa));
  const HostMatrix share = Matmul(MatmulForm::kNN, dxa, layer.a);
  EXPECT_NE(RoundTo(DType::kBF16, share).values, share.values)
      << "a rounding of its own would not show";
  EXPECT_EQ(dx.At(tokens, inputs).ToFloats(),
            Bf16(Sum(Matmul(MatmulForm::kNN, layer.dy, layer.w), share)));

  m.ExpectUntouchedBut({});
  x.ExpectUntouchedBut(ranks);
  y.ExpectUntouchedBut({0, L::kAllOutputs});
  dy.ExpectUntouchedBut(grad_ranks);
  dx.ExpectUntouchedBut(inputs);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// A product and a kernel a tile of the vocabulary, each way, and where there
// are several, a rounding of the sum of their gradients; results go where they
// are wanted.
TEST(CudaHeadTest, TakesTwoLaunchesATile) {
  constexpr int64_t kRows = 8, kInputs = 8;
  for (const int64_t tiles : {1, 2}) {
    cuda_fakes::Reset({.policy = Policy::kLazyLast});
    const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
    const int64_t tile = device->backend().logit_tile;
    EXPECT_LE(128256 / tile, 16) << "Llama 3's vocabulary";
    const ops::HeadSlice head = {
        .weight = Tensor::Zeros(device.get(), {(tiles - 1) * tile + 8, kInputs},
                                DType::kBF16)};
    const Tensor h =
        Tensor::Zeros(device.get(), {kRows, kInputs}, DType::kBF16);
    const Tensor targets = Tensor::FromHost<int32_t>(
        device.get(), {kRows}, std::vector<int32_t>(kRows, 3));
    Tensor stats = Tensor::Zeros(device.get(), {3, 2 * kRows}, DType::kF32)
                       .Cols({0, kRows});
    Tensor dh = Tensor::Zeros(device.get(), {kRows, kInputs}, DType::kBF16);
    const int64_t before = cuda_fakes::Launches();
    const ops::KeptExps kept =
        ops::LogitStats(h, head, targets, ops::KeepExps::kYes, &stats);
    EXPECT_EQ(cuda_fakes::Launches() - before, 2 * tiles);
    ops::LogitGrad(kept, stats, head, targets, 1.0f, {}, &dh);
    EXPECT_EQ(cuda_fakes::Launches() - before, 4 * tiles + tiles - 1);
  }
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// More than both buffers hold, and small arrays in between; the host's memory
// goes at once.
TEST_P(CudaBackendTest, CopiesKeepTheirValues) {
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
  const auto count_from = [](int32_t first, size_t count) {
    std::vector<int32_t> values(count);
    std::iota(values.begin(), values.end(), first);
    return values;
  };
  constexpr size_t kLarge = 5 * cuda::HostRing::kBufferBytes / 8 + 3;
  std::vector<Tensor> tensors;
  std::vector<size_t> counts;
  for (int32_t i = 0; i < 8; ++i) {
    counts.push_back(i % 3 == 2 ? kLarge : static_cast<size_t>(i + 1));
    tensors.push_back(Tensor::FromHost<int32_t>(
        device.get(), {static_cast<int64_t>(counts.back())},
        count_from(i, counts.back())));
  }
  for (int32_t i = 0; i < 8; ++i) {
    const size_t at = static_cast<size_t>(i);
    EXPECT_EQ(tensors[at].ToHost<int32_t>(), count_from(i, counts[at])) << i;
  }
}

TEST_P(CudaBackendTest, StepsAfterTheFirstAllocateNothing) {
  const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kPool);
  const auto step = [&] {
    const Tensor a = Tensor::Zeros(device.get(), {33, 136}, DType::kBF16);
    const Tensor b = Tensor::Zeros(device.get(), {72, 136}, DType::kBF16);
    const Tensor y = ops::Convert(ops::MatmulNT(a, b), DType::kF32);
    Tensor norm = Tensor::Empty(device.get(), {1}, DType::kF64);
    ops::SquaredNorm(y.Reshape({y.elements()}), &norm);
    return norm.ToHost<double>()[0];
  };
  EXPECT_EQ(step(), 0.0);
  const int64_t allocations = cuda_fakes::Allocations();
  const auto& plans = cuda::Of(device->queue())->matmuls;
  EXPECT_EQ(plans.size(), 1u);
  EXPECT_EQ(step(), 0.0);
  EXPECT_EQ(cuda_fakes::Allocations(), allocations);
  EXPECT_EQ(plans.size(), 1u);
}

TEST(CudaBackendDeathTest, OutOfMemorySaysHowMuch) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        cuda_fakes::Reset({.memory_bytes = size_t{1} << 20});
        const std::unique_ptr<Device> device = OpenFakeGpu(Allocation::kDirect);
        Tensor::Empty(device.get(), {1 << 20}, DType::kF32);
      },
      "out of memory: 4194304 bytes wanted, 0 in use on cuda");
}

TEST(CudaBackendTest, DevicesAreListedAndOpenedByNumber) {
  cuda_fakes::Reset({.devices = 2});
  const auto devices = ListCudaDevices();
  ASSERT_TRUE(devices.ok());
  ASSERT_EQ(devices->size(), 2u);
  EXPECT_EQ((*devices)[1].name, "Fake GPU 1");
  EXPECT_EQ((*devices)[1].uuid, "GPU-00000000-0000-0000-0000-000000000001");
  EXPECT_EQ(OpenCudaDevice({.index = 2}).status().message(),
            "there is no GPU 2, but 2 of them, counted from 0");
}

}  // namespace
}  // namespace lorica
