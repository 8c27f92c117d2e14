// Collectives on devices, on the stand-ins for CUDA and NCCL: what every
// communicator must do, in every order that streams are free to take.
#include "parallel/nccl_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "absl/time/clock.h"
#include "parallel/recorded_work.h"
#include "parallel/watchdog.h"
#include "runtime/ops.h"
#include "tests/parallel/communicator_suite.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

std::unique_ptr<Device> OpenFakeGpu() {
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenCudaDevice({.allocation = Allocation::kDirect});
  return device.ok() ? *std::move(device) : nullptr;
}

constexpr DeviceSums kTrees = {SumOrder::kTree, SumOrder::kTree};
constexpr DeviceSums kFastest = {SumOrder::kFastest, SumOrder::kFastest};

void OnGpus(int ranks, const cuda_fakes::Settings& settings,
            const DeviceSums& sums,
            const std::function<void(Communicator& world)>& body) {
  cuda_fakes::Reset(settings);
  SetTestDevice(OpenFakeGpu);
  RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
    world->SetDeviceCollectives(
        NcclCollectives({.open_timeout = absl::Seconds(20)}), sums);
    body(*world);
  });
}

using Param = std::tuple<CommunicatorCase, int, Policy>;

class NcclCommunicatorSuite : public testing::TestWithParam<Param> {};

TEST_P(NcclCommunicatorSuite, Holds) {
  const auto& [test_case, ranks, policy] = GetParam();
  OnGpus(ranks, {.policy = policy}, kTrees,
         [check = test_case.check](Communicator& world) { check(world); });
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
}

std::string Name(const testing::TestParamInfo<Param>& param) {
  return std::string(std::get<0>(param.param).name) + "On" +
         std::to_string(std::get<1>(param.param)) +
         testing::PrintToString(std::get<2>(param.param));
}

// Each policy on one number of ranks, the random one on all.
INSTANTIATE_TEST_SUITE_P(
    Random, NcclCommunicatorSuite,
    testing::Combine(testing::ValuesIn(CommunicatorCases()),
                     testing::Values(1, 2, 3),
                     testing::Values(Policy::kLazyRandom)),
    Name);
INSTANTIATE_TEST_SUITE_P(
    Others, NcclCommunicatorSuite,
    testing::Combine(testing::ValuesIn(CommunicatorCases()), testing::Values(4),
                     testing::Values(Policy::kEager, Policy::kLazyLast)),
    Name);

TEST(NcclCommunicatorTest, NcclsOwnSumsAreOfTheSameTerms) {
  OnGpus(4, {}, kFastest, [](Communicator& world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    for (const int64_t rows : {8, 9}) {
      const std::vector<float> values(static_cast<size_t>(rows * 3),
                                      static_cast<float>(1 << world.rank()));
      Tensor tensor = Tensor::FromHost<float>(device.get(), {rows, 3}, values);
      std::vector<int64_t> slices(4, rows / 4);
      slices[0] += rows % 4;
      const Tensor slice =
          world.ReduceScatterRows(tensor, slices, Purpose::kActivation);
      world.AllReduceSum(&tensor, Purpose::kActivation);
      EXPECT_EQ(tensor.ToHost<float>(),
                std::vector<float>(static_cast<size_t>(rows * 3), 15.0f));
      EXPECT_EQ(
          slice.ToHost<float>(),
          std::vector<float>(static_cast<size_t>(slice.elements()), 15.0f));
    }
  });
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

// A sum of a few elements, which all ranks gather, and one of chunks.
constexpr int64_t kStarted[] = {1000, 40000};

TEST(NcclCommunicatorTest, StartedSumsAreThereOnceJoined) {
  for (const Policy policy : cuda_fakes::kPolicies) {
    for (const DeviceSums& sums : {kTrees, kFastest}) {
      OnGpus(3, {.policy = policy}, sums, [](Communicator& world) {
        const std::unique_ptr<Device> device = OpenTestDevice();
        std::vector<Tensor> tensors;
        for (const int64_t size : kStarted) {
          Tensor& tensor = tensors.emplace_back(
              Tensor::Empty(device.get(), {size}, DType::kF32));
          ops::Fill(static_cast<float>(world.rank() + 1), &tensor);
          world.StartAllReduceSum(&tensor, Purpose::kAdapterGrad);
        }
        world.JoinSums(device.get());
        for (Tensor& tensor : tensors) {
          ops::AddInto(Tensor::Zeros(device.get(), tensor.shape(), DType::kF32),
                       &tensor);
          EXPECT_THAT(tensor.ToHost<float>(), Each(6.0f));
        }
      });
      EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
      EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
    }
  }
}

TEST(NcclCommunicatorTest, ASumUsedBeforeItIsJoinedIsReported) {
  for (const Policy policy : cuda_fakes::kPolicies) {
    for (const int64_t size : kStarted) {
      OnGpus(2, {.policy = policy}, kTrees, [size](Communicator& world) {
        const std::unique_ptr<Device> device = OpenTestDevice();
        Tensor tensor = Tensor::Zeros(device.get(), {size}, DType::kF32);
        world.StartAllReduceSum(&tensor, Purpose::kAdapterGrad);
        ops::Fill(1.0f, &tensor);
        world.JoinSums(device.get());
        device->Synchronize();
      });
      EXPECT_THAT(cuda_fakes::TakeReports(),
                  Contains(HasSubstr("nothing orders them")));
    }
  }
}

// Rank 1 comes to the sum only after rank 0 has seen what it gave its device
// afterwards.
TEST(NcclCommunicatorTest, WorkGivenAfterAStartedSumDoesNotWaitForIt) {
  for (const DeviceSums& sums : {kTrees, kFastest}) {
    OnGpus(2, {.policy = Policy::kLazyLast}, sums, [](Communicator& world) {
      const std::unique_ptr<Device> device = OpenTestDevice();
      ASSERT_TRUE(world.OpenDeviceCollectivesNow().ok());
      Tensor tensor = Tensor::Zeros(device.get(), {40000}, DType::kF32);
      Tensor other = Tensor::Empty(device.get(), {8}, DType::kF32);
      if (world.rank() == 1) world.Barrier();
      world.StartAllReduceSum(&tensor, Purpose::kAdapterGrad);
      ops::Fill(2.0f, &other);
      EXPECT_THAT(other.ToHost<float>(), Each(2.0f));
      if (world.rank() == 0) world.Barrier();
      world.JoinSums(device.get());
      device->Synchronize();
    });
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  }
}

// The sum of a large array and of a small one in memory for sums, which is
// there if `there`.
void SumInSumMemory(const cuda_fakes::Settings& settings, bool there) {
  OnGpus(2, settings, kFastest, [there](Communicator& world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    ASSERT_TRUE(world.OpenDeviceCollectivesNow().ok());
    const Tensor memory = world.CollectiveMemory(device.get(), 50000);
    ASSERT_EQ(memory.present(), there);
    if (!there) return;
    for (const Range& range : {Range{0, 49920}, Range{49920, 50000}}) {
      Tensor part = memory.Cols(range);
      ops::Fill(1.0f, &part);
      world.StartAllReduceSum(&part, Purpose::kAdapterGrad);
    }
    world.JoinSums(device.get());
    EXPECT_THAT(memory.ToHost<float>(), Each(2.0f));
  });
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
}

TEST(NcclCommunicatorTest, MemoryForSumsIsRegistered) {
  for (const Policy policy : cuda_fakes::kPolicies) {
    SumInSumMemory({.policy = policy}, true);
    EXPECT_EQ(cuda_fakes::RegisteredCalls(), 4);
  }
}

TEST(NcclCommunicatorTest, AllRanksRegisterOrNone) {
  SumInSumMemory({.nccl_version = 21805}, false);
  SumInSumMemory({.nccl_registering_ranks = 0}, false);
  SumInSumMemory({.nccl_registering_ranks = 1}, false);
  SumInSumMemory({.memory_bytes = 200}, false);
}

TEST(NcclCommunicatorTest, RanksThatDoNotFindEachOtherAreAnError) {
  cuda_fakes::Reset({.nccl_connects = false});
  RunRanks(2, [](std::unique_ptr<Communicator> world) {
    world->SetDeviceCollectives(
        NcclCollectives({.open_timeout = absl::Milliseconds(100)}), kTrees);
    const absl::Status status = world->OpenDeviceCollectivesNow();
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("NCCL did not bring 2 ranks together within 100ms"));
  });
}

TEST(NcclCommunicatorDeathTest, ACollectiveOfAPeerThatDoesNotComeIsAborted) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      OnGpus(2, {.policy = Policy::kLazyLast}, kFastest,
             [](Communicator& world) {
               Watchdog watchdog(absl::Seconds(2));
               world.SetWatchdog(&watchdog);
               const std::unique_ptr<Device> device = OpenTestDevice();
               Tensor tensor = Tensor::Zeros(device.get(), {64}, DType::kF32);
               world.AllReduceSum(&tensor, Purpose::kActivation);
               if (world.rank() == 1) absl::SleepFor(absl::Seconds(60));
               world.AllReduceSum(&tensor, Purpose::kAdapterGrad);
               device->Synchronize();
             }),
      testing::ExitedWithCode(Watchdog::kExitCode),
      "rank 0 waited [0-9.]+m?s in all-reduce sum 2 \\(adapter gradient, 256 "
      "bytes, group of ranks 0 1\\)");
}

// Two sums of a tensor over the ranks as recorded work of its device.
class RecordedSums {
 public:
  RecordedSums(Communicator* world, Tensor* tensor)
      : world_(world),
        tensor_(tensor),
        memory_(&tensor->device()->backend(), tensor->device()->queue(),
                Allocation::kPool),
        work_(tensor->device(),
              {.recorder = tensor->device()->backend().recorder(
                   tensor->device()->queue()),
               .memory = &memory_,
               .group = world}) {}

  void Do() {
    work_.Do([this] {
      world_->AllReduceSum(tensor_, Purpose::kActivation);
      world_->AllReduceSum(tensor_, Purpose::kActivationGrad);
    });
  }

 private:
  Communicator* world_;
  Tensor* tensor_;
  Allocator memory_;
  RecordedWork work_;
};

TEST(NcclCommunicatorTest, RecordedCollectivesRunAndCountWithEachReplay) {
  for (const auto& [policy, sums_by] : {std::pair{Policy::kEager, kFastest},
                                        {Policy::kLazyRandom, kFastest},
                                        {Policy::kLazyLast, kFastest},
                                        {Policy::kLazyLast, kTrees}}) {
    OnGpus(2, {.policy = policy}, sums_by, [](Communicator& world) {
      Watchdog watchdog(absl::Seconds(20));
      world.SetWatchdog(&watchdog);
      const std::unique_ptr<Device> device = OpenTestDevice();
      Tensor tensor = Tensor::Empty(device.get(), {64}, DType::kF32);
      ops::Fill(1.0f, &tensor);
      RecordedSums sums(&world, &tensor);
      for (const float value : {4.0f, 16.0f, 64.0f}) {
        sums.Do();
        EXPECT_THAT(tensor.ToHost<float>(), Each(value));
      }
      // Others go on as ever.
      world.AllReduceSum(&tensor, Purpose::kActivation);
      EXPECT_THAT(tensor.ToHost<float>(), Each(128.0f));
      EXPECT_EQ(world.traffic(Purpose::kActivation), (Traffic{4, 1024}));
      EXPECT_EQ(world.traffic(Purpose::kActivationGrad), (Traffic{3, 768}));
      world.SetWatchdog(nullptr);
    });
    EXPECT_EQ(cuda_fakes::Collectives(), 2 + 2 * 2 + 1);
    EXPECT_EQ(cuda_fakes::GraphLaunches(), 2 * 2);
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
    EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
  }
}

TEST(NcclCommunicatorDeathTest, AReplayOfAPeerThatDoesNotComeIsAborted) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      OnGpus(2, {.policy = Policy::kLazyLast}, kFastest,
             [](Communicator& world) {
               Watchdog watchdog(absl::Seconds(2));
               world.SetWatchdog(&watchdog);
               const std::unique_ptr<Device> device = OpenTestDevice();
               Tensor tensor = Tensor::Zeros(device.get(), {64}, DType::kF32);
               RecordedSums sums(&world, &tensor);
               sums.Do();
               sums.Do();
               if (world.rank() == 1) absl::SleepFor(absl::Seconds(60));
               sums.Do();
               device->Synchronize();
             }),
      testing::ExitedWithCode(Watchdog::kExitCode),
      "rank 0 waited [0-9.]+m?s in recorded collectives 5 to 6 \\(512 bytes, "
      "group of ranks 0 1\\)");
}

TEST(NcclCommunicatorDeathTest, TheHostsCollectivesCannotBeRecorded) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(OnGpus(2, {}, kFastest,
                      [](Communicator& world) {
                        RecordedCalls calls;
                        world.BeginRecording(&calls);
                        world.Barrier();
                      }),
               "the host's collective is recorded");
}

TEST(NcclCommunicatorTest, TensorsOfOtherTypesGoByWayOfTheHost) {
  OnGpus(2, {}, kTrees, [](Communicator& world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    Tensor tensor = Tensor::FromHost<int32_t>(
        device.get(), {2}, std::vector<int32_t>{1, world.rank()});
    world.AllReduceSum(&tensor, Purpose::kControl);
    EXPECT_EQ(tensor.ToHost<int32_t>(), (std::vector<int32_t>{2, 1}));
  });
}

}  // namespace
}  // namespace lorica
