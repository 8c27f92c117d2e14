// On the stand-ins for CUDA, where a stream can be captured.
#include "parallel/recorded_work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "parallel/local_communicator.h"
#include "runtime/device.h"
#include "runtime/ops.h"
#include "runtime/trace.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using testing::Each;
using testing::IsEmpty;

class RecordedWorkTest : public testing::TestWithParam<cuda_fakes::Policy> {
 protected:
  void SetUp() override {
    cuda_fakes::Reset({.policy = GetParam()});
    auto device = OpenCudaDevice({.allocation = Allocation::kDirect});
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    memory_ = std::make_unique<Allocator>(&device_->backend(), device_->queue(),
                                          Allocation::kPool);
    sum_ = Tensor::Zeros(device_.get(), {300}, DType::kF32);
    one_ = Tensor::Empty(device_.get(), {300}, DType::kF32);
    ops::Fill(1.0f, &one_);
  }
  void TearDown() override {
    sum_ = one_ = {};
    memory_ = nullptr;
    device_ = nullptr;
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
    EXPECT_EQ(cuda_fakes::BytesAllocated(), 0u);
  }

  WorkRecorder Recorder() const {
    return {.recorder = device_->backend().recorder(device_->queue()),
            .memory = memory_.get(),
            .group = world_.get()};
  }
  // Adds two, by way of a tensor that it lets go of.
  void AddTwo() {
    ++calls_;
    const Tensor two = ops::Convert(one_, DType::kF32, 2.0f);
    ops::AddInto(two, &sum_);
  }

  std::unique_ptr<Communicator> world_ = LoneCommunicator();
  std::unique_ptr<Device> device_;
  std::unique_ptr<Allocator> memory_;
  Tensor sum_;
  Tensor one_;
  int calls_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Policies, RecordedWorkTest,
                         testing::ValuesIn(cuda_fakes::kPolicies),
                         testing::PrintToStringParamName());

TEST_P(RecordedWorkTest, IsCalledTwiceAndReplayedAfterwards) {
  RecordedWork work(device_.get(), Recorder());
  const int64_t launches = cuda_fakes::Launches();
  for (int time = 1; time <= 5; ++time) {
    work.Do([this] { AddTwo(); });
    EXPECT_EQ(calls_, time == 1 ? 1 : 2);
    EXPECT_EQ(cuda_fakes::GraphLaunches(), time - 1);
    EXPECT_THAT(sum_.ToHost<float>(), Each(2.0f * static_cast<float>(time)));
  }
  EXPECT_EQ(cuda_fakes::Launches() - launches, 4);
}

TEST_P(RecordedWorkTest, WithoutARecorderIsCalledEachTime) {
  RecordedWork work(device_.get());
  for (int time = 1; time <= 3; ++time) {
    work.Do([this] { AddTwo(); });
    EXPECT_EQ(calls_, time);
  }
  EXPECT_THAT(sum_.ToHost<float>(), Each(6.0f));
  EXPECT_EQ(cuda_fakes::GraphLaunches(), 0);
}

TEST_P(RecordedWorkTest, ReadsWhatItsArraysHoldAtTheTime) {
  RecordedWork work(device_.get(), Recorder());
  float sum = 0.0f;
  for (const float value : {1.0f, 5.0f, 7.0f, -2.0f}) {
    ops::Fill(value, &one_);
    work.Do([this] { AddTwo(); });
    sum += 2.0f * value;
    EXPECT_THAT(sum_.ToHost<float>(), Each(sum));
  }
}

// Were it other memory, that would be given back, which the stand-ins report,
// or belong to the tensors made in between.
TEST_P(RecordedWorkTest, ItsTensorsLieWhereTheyLayAtFirst) {
  RecordedWork work(device_.get(), Recorder());
  for (int time = 1; time <= 4; ++time) {
    const Tensor other = ops::Convert(one_, DType::kF32, 9.0f);
    work.Do([this] { AddTwo(); });
    EXPECT_THAT(other.ToHost<float>(), Each(9.0f));
  }
  EXPECT_THAT(sum_.ToHost<float>(), Each(8.0f));
}

TEST_P(RecordedWorkTest, IsCalledWhereATraceWantsToSeeEachOp) {
  RecordedWork work(device_.get(), Recorder());
  for (int time = 1; time <= 3; ++time) work.Do([this] { AddTwo(); });
  StartTrace();
  work.Do([this] { AddTwo(); });
  StopTrace();
  EXPECT_EQ(calls_, 3);
  work.Do([this] { AddTwo(); });
  EXPECT_EQ(calls_, 3);
  EXPECT_THAT(sum_.ToHost<float>(), Each(10.0f));
}

}  // namespace
}  // namespace lorica
