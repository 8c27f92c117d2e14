#include "tests/parallel/communicator_suite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "parallel/tree_sum.h"
#include "runtime/random.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

constexpr Purpose kAny = Purpose::kLoss;

// From whole arrays smaller than a rank's chunk to more than one block.
constexpr int64_t kSizes[] = {1, 7, 1000, 8191, 100003, 600001};
// A device that is simulated takes no longer ones.
constexpr int64_t kLongestOnDevice = 100003;

int64_t Longest(const Device& device) {
  return device.backend().memory == Memory::kHost
             ? std::numeric_limits<int64_t>::max()
             : kLongestOnDevice;
}

// Element i of rank r: small enough that sums over 8 ranks are exact in BF16.
int Term(int rank, int64_t i) { return static_cast<int>(i % 7) + rank - 3; }

int SumOfTerms(int ranks, int64_t i) {
  int sum = 0;
  for (int rank = 0; rank < ranks; ++rank) sum += Term(rank, i);
  return sum;
}

template <typename T>
T Value(int value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return BFloat16(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

template <typename T>
bool Equal(T a, T b) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return static_cast<float>(a) == static_cast<float>(b);
  } else {
    return a == b;
  }
}

template <typename T>
Tensor TermsOf(Device* device, Shape shape, int rank) {
  std::vector<T> values;
  for (int64_t i = 0; i < shape.elements(); ++i) {
    values.push_back(Value<T>(Term(rank, i)));
  }
  return Tensor::FromHost<T>(device, shape, values);
}

// Expects element i of `tensor` to be expected(i).
template <typename T, typename Expected>
void ExpectElements(const Tensor& tensor, const Expected& expected) {
  const std::vector<T> values = tensor.ToHost<T>();
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    if (!Equal(values[i], Value<T>(expected(i)))) {
      ADD_FAILURE() << tensor.dtype() << " element " << i << " of "
                    << tensor.shape() << " is not " << expected(i);
      return;
    }
  }
}

// Rows of the ranks: different, one of them none.
std::vector<int64_t> UnevenRows(int ranks) {
  std::vector<int64_t> rows;
  for (int rank = 0; rank < ranks; ++rank) rows.push_back((rank * 5 + 3) % 7);
  if (ranks > 2) rows[1] = 0;
  return rows;
}

int64_t FirstRow(const std::vector<int64_t>& rows, int rank) {
  int64_t first = 0;
  for (int peer = 0; peer < rank; ++peer) first += rows[peer];
  return first;
}

template <typename T>
void CheckSums(Communicator& world) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  for (const int64_t size : kSizes) {
    if (size > Longest(*device)) continue;
    Tensor tensor = TermsOf<T>(device.get(), {size}, world.rank());
    world.AllReduceSum(&tensor, kAny);
    ExpectElements<T>(tensor,
                      [&](int64_t i) { return SumOfTerms(world.size(), i); });
  }
}

void AllReduceSumIsExact(Communicator& world) {
  CheckSums<float>(world);
  CheckSums<BFloat16>(world);
  CheckSums<int32_t>(world);
  CheckSums<int64_t>(world);
}

void SumOfNothingIsNothing(Communicator& world) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  Tensor tensor = Tensor::Empty(device.get(), {0}, DType::kF32);
  world.AllReduceSum(&tensor, kAny);
  EXPECT_EQ(tensor.elements(), 0);
}

void MaxKeepsNaN(Communicator& world) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  for (const int64_t size : {int64_t{5}, int64_t{300000}}) {
    std::vector<float> values;
    for (int64_t i = 0; i < size; ++i) {
      values.push_back(static_cast<float>(Term(world.rank(), i)));
    }
    if (world.rank() == world.size() - 1) {
      values[3] = std::numeric_limits<float>::quiet_NaN();
    }
    Tensor tensor = Tensor::FromHost<float>(device.get(), {size}, values);
    world.AllReduceMax(&tensor, kAny);
    values = tensor.ToHost<float>();
    for (int64_t i = 0; i < size; ++i) {
      const float largest = static_cast<float>(Term(world.size() - 1, i));
      ASSERT_TRUE(i == 3 ? std::isnan(values[i]) : values[i] == largest) << i;
    }
  }
}

// Sums in another order, or rounds in between, give other bits.
void SumsFollowTheTree(Communicator& world) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const int64_t size = 70001;
  const auto term = [](int rank, int64_t i) {
    const RandomField field = {1, static_cast<uint64_t>(rank)};
    return field.Uniform(static_cast<uint64_t>(i)) - 0.5f;
  };
  const auto tree = [&](const auto& self, int first, int count,
                        int64_t i) -> float {
    if (count == 1) return term(first, i);
    const int left = static_cast<int>(TreeSplit(count));
    return self(self, first, left, i) +
           self(self, first + left, count - left, i);
  };
  std::vector<float> values;
  for (int64_t i = 0; i < size; ++i) values.push_back(term(world.rank(), i));
  Tensor whole = Tensor::FromHost<float>(device.get(), {size}, values);
  Tensor start = Tensor::FromHost<float>(device.get(), {100},
                                         absl::MakeSpan(values).first(100));
  world.AllReduceSum(&whole, kAny);
  world.AllReduceSum(&start, kAny);
  const std::vector<float> sums = whole.ToHost<float>();
  const std::vector<float> start_sums = start.ToHost<float>();
  for (int64_t i = 0; i < size; ++i) {
    ASSERT_EQ(sums[i], tree(tree, 0, world.size(), i)) << i;
    if (i < 100) {
      ASSERT_EQ(start_sums[i], sums[i]) << i;
    }
  }
}

// 1 + n 2^-8: half an ulp each, lost if every addition rounds.
void BFloat16RoundsOnce(Communicator& world) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  for (const int64_t size : {int64_t{10}, int64_t{100000}}) {
    const float mine = world.rank() == 0 ? 1.0f : 0x1p-8f;
    const float sum = 1.0f + 0x1p-8f * static_cast<float>(world.size() - 1);
    const std::vector<BFloat16> values(size, BFloat16(mine));
    Tensor tensor = Tensor::FromHost<BFloat16>(device.get(), {size}, values);
    world.AllReduceSum(&tensor, kAny);
    EXPECT_EQ(tensor.ToHost<BFloat16>().back().bits, BFloat16(sum).bits);
  }
}

template <typename T>
void CheckRowCollectives(Communicator& world, int64_t cols) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  if (10 * cols > Longest(*device)) return;
  const std::vector<int64_t> rows = UnevenRows(world.size());
  const int64_t total = FirstRow(rows, world.size());
  const int64_t first = FirstRow(rows, world.rank());
  const Tensor terms = TermsOf<T>(device.get(), {total, cols}, world.rank());
  const Tensor slice = world.ReduceScatterRows(terms, rows, kAny);
  ASSERT_EQ(slice.shape(), (Shape{rows[world.rank()], cols}));
  ExpectElements<T>(slice, [&](int64_t i) {
    return SumOfTerms(world.size(), first * cols + i);
  });
  const Tensor whole = world.AllGatherRows(slice, rows, kAny);
  ASSERT_EQ(whole.shape(), (Shape{total, cols}));
  ExpectElements<T>(whole,
                    [&](int64_t i) { return SumOfTerms(world.size(), i); });
}

void RowSlicesScatterAndGather(Communicator& world) {
  for (const int64_t cols : {1, 33, 4001, 40001}) {
    CheckRowCollectives<float>(world, cols);
    CheckRowCollectives<BFloat16>(world, cols);
  }
}

void HostValuesAreReduced(Communicator& world) {
  const int n = world.size();
  std::vector<double> doubles = {1.0 + world.rank(), 0.25};
  world.AllReduceSum(absl::MakeSpan(doubles), kAny);
  EXPECT_EQ(doubles, (std::vector<double>{n * (n + 1) / 2.0, 0.25 * n}));
  std::vector<int64_t> sums = {int64_t{1} << 40, world.rank()};
  world.AllReduceSum(absl::MakeSpan(sums), kAny);
  EXPECT_EQ(sums,
            (std::vector<int64_t>{n * (int64_t{1} << 40), n * (n - 1) / 2}));
  std::vector<int64_t> maxima = {-world.rank(), world.rank()};
  world.AllReduceMax(absl::MakeSpan(maxima), kAny);
  EXPECT_EQ(maxima, (std::vector<int64_t>{0, n - 1}));
}

void BytesOfAnyLengthTravel(Communicator& world) {
  const auto bytes_of = [](int rank) {
    const size_t length = rank == 1 ? 0 : rank == 2 ? 3000000 : 5 + rank;
    return std::string(length, static_cast<char>('a' + rank));
  };
  const std::vector<std::string> all =
      world.AllGatherBytes(bytes_of(world.rank()), kAny);
  ASSERT_EQ(static_cast<int>(all.size()), world.size());
  for (int rank = 0; rank < world.size(); ++rank) {
    EXPECT_TRUE(all[rank] == bytes_of(rank)) << rank;
    EXPECT_TRUE(world.BroadcastBytes(bytes_of(world.rank()), rank, kAny) ==
                bytes_of(rank))
        << rank;
  }
}

// A slot overwritten too early shows as a wrong sum.
void CollectivesFollowEachOtherClosely(Communicator& world) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  Tensor tensor = Tensor::Zeros(device.get(), {40000}, DType::kF32);
  const bool simulated = device->backend().memory != Memory::kHost;
  for (int round = 0; round < (simulated ? 9 : 100); ++round) {
    const std::vector<float> values(40000,
                                    static_cast<float>(round + world.rank()));
    const int64_t size = round % 3 == 0 ? 10 : 40000;
    Tensor part = tensor.Cols({0, size});
    part.CopyFrom(values.data());
    world.AllReduceSum(&part, kAny);
    const int n = world.size();
    const float sum = static_cast<float>(n * round + n * (n - 1) / 2);
    const std::vector<float> sums = part.ToHost<float>();
    ASSERT_EQ(sums.front(), sum) << round;
    ASSERT_EQ(sums.back(), sum) << round;
  }
  world.Barrier();
}

void SubgroupsTalkAmongThemselves(Communicator& world) {
  // Odd and even ranks, in reverse.
  const int parity = world.rank() % 2;
  const std::unique_ptr<Communicator> half = world.Split(parity, -world.rank());
  const int members = (world.size() + 1 - parity) / 2;
  ASSERT_EQ(half->size(), members);
  EXPECT_EQ(half->rank(), members - 1 - world.rank() / 2);
  EXPECT_EQ(half->world_rank(half->rank()), world.world_rank(world.rank()));
  EXPECT_EQ(half->world_rank(0), world.world_rank(2 * (members - 1) + parity));
  std::vector<int64_t> sum = {world.rank()};
  half->AllReduceSum(absl::MakeSpan(sum), kAny);
  EXPECT_EQ(sum[0], members * (members - 1) + parity * members);
  const std::unique_ptr<Communicator> alone = half->Split(half->rank(), 0);
  EXPECT_EQ(alone->size(), 1);
  EXPECT_EQ(alone->world_rank(0), world.world_rank(world.rank()));
  world.Barrier();
}

void TrafficIsCountedByPurpose(Communicator& world) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  world.ResetTraffic();
  const std::vector<int64_t> rows = UnevenRows(world.size());
  const int64_t total = FirstRow(rows, world.size());
  Tensor tensor = Tensor::Zeros(device.get(), {total, 8}, DType::kBF16);
  world.AllReduceSum(&tensor, Purpose::kActivation);
  const Tensor slice =
      world.ReduceScatterRows(tensor, rows, Purpose::kActivationGrad);
  world.AllGatherRows(slice, rows, Purpose::kActivation);
  const bool alone = world.size() == 1;
  const int64_t bytes = total * 16;
  EXPECT_EQ(world.traffic(Purpose::kActivation),
            alone ? Traffic{} : (Traffic{2, 2 * bytes}));
  EXPECT_EQ(world.traffic(Purpose::kActivationGrad),
            alone ? Traffic{} : (Traffic{1, bytes}));
  EXPECT_EQ(world.traffic(Purpose::kAdapterGrad), Traffic{});
}

}  // namespace

std::vector<CommunicatorCase> CommunicatorCases() {
  return {
      {"AllReduceSumIsExact", AllReduceSumIsExact},
      {"SumOfNothingIsNothing", SumOfNothingIsNothing},
      {"MaxKeepsNaN", MaxKeepsNaN},
      {"SumsFollowTheTree", SumsFollowTheTree},
      {"BFloat16RoundsOnce", BFloat16RoundsOnce},
      {"RowSlicesScatterAndGather", RowSlicesScatterAndGather},
      {"HostValuesAreReduced", HostValuesAreReduced},
      {"BytesOfAnyLengthTravel", BytesOfAnyLengthTravel},
      {"CollectivesFollowEachOtherClosely", CollectivesFollowEachOtherClosely},
      {"SubgroupsTalkAmongThemselves", SubgroupsTalkAmongThemselves},
      {"TrafficIsCountedByPurpose", TrafficIsCountedByPurpose},
  };
}

}  // namespace lorica
