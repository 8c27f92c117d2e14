#include "launch/device_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "runtime/ops.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using testing::HasSubstr;
using testing::Not;

// Opens a device on every rank, all of one host.
void OnRanks(
    int ranks, const DeviceOptions& options,
    const std::function<void(int rank, const ChosenDevice& chosen)>& expect,
    const char* error = "") {
  RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
    const absl::StatusOr<ChosenDevice> chosen = OpenDevice(
        options,
        {.host = "node7", .local_rank = world->rank(), .local_ranks = ranks},
        {}, *world);
    if (chosen.ok()) {
      expect(world->rank(), *chosen);
    } else {
      EXPECT_THAT(std::string(chosen.status().message()), HasSubstr(error));
    }
    EXPECT_EQ(chosen.ok(), error[0] == '\0');
  });
}

void ExpectCpu(int, const ChosenDevice& chosen) {
  EXPECT_EQ(chosen.gpu, "");
  EXPECT_EQ(chosen.why_cpu, "");
  EXPECT_EQ(chosen.device->backend().memory, Memory::kHost);
}

// As kAuto falls back to it.
auto ExpectCpuBecause(const std::string& reason) {
  return [reason](int, const ChosenDevice& chosen) {
    EXPECT_EQ(chosen.gpu, "");
    EXPECT_EQ(chosen.why_cpu, reason);
    EXPECT_EQ(chosen.device->backend().memory, Memory::kHost);
  };
}

void ExpectOwnGpu(int rank, const ChosenDevice& chosen) {
  EXPECT_EQ(chosen.gpu, "Fake GPU " + std::to_string(rank));
  EXPECT_EQ(chosen.why_cpu, "");
  EXPECT_EQ(chosen.device->backend().memory, Memory::kDevice);
}

TEST(DeviceChoiceTest, EachRankOfAHostTakesItsGpu) {
  cuda_fakes::Reset({.devices = 4});
  OnRanks(3, {DeviceKind::kCuda}, ExpectOwnGpu);
  OnRanks(3, {DeviceKind::kAuto}, ExpectOwnGpu);
  OnRanks(3, {DeviceKind::kCpu}, ExpectCpu);
}

TEST(DeviceChoiceTest, MoreRanksThanGpusAreAnErrorUnlessAuto) {
  cuda_fakes::Reset({.devices = 2});
  OnRanks(3, {DeviceKind::kCuda}, ExpectOwnGpu,
          "rank 0: device is CUDA, but Fake GPU 0 "
          "(GPU-00000000-0000-0000-0000-000000000000) of node7 would be shared "
          "with rank 2: 3 ranks started there and 2 GPUs are visible; start a "
          "rank a GPU; or set device to CPU or AUTO");
  OnRanks(3, {DeviceKind::kAuto},
          ExpectCpuBecause(
              "rank 0: Fake GPU 0 (GPU-00000000-0000-0000-0000-000000000000) "
              "of node7 would be shared with rank 2: 3 ranks started there and "
              "2 GPUs are visible; start a rank a GPU"));
}

TEST(DeviceChoiceTest, NoGpuIsAnErrorUnlessAuto) {
  cuda_fakes::Reset({.devices = 0});
  OnRanks(2, {DeviceKind::kCuda}, ExpectOwnGpu,
          "device is CUDA, but node7 shows no GPU to this rank "
          "(CUDA_VISIBLE_DEVICES?); or set device to CPU or AUTO");
  OnRanks(2, {DeviceKind::kAuto},
          ExpectCpuBecause("node7 shows no GPU to this rank "
                           "(CUDA_VISIBLE_DEVICES?)"));
}

// Each rank multiplies in a shape of its own.
TEST(DeviceChoiceTest, Rank0AloneMeasuresProducts) {
  cuda_fakes::Reset({.devices = 2});
  const TempDirectory dir;
  OnRanks(2, {DeviceKind::kCuda, dir / "products"},
          [](int rank, const ChosenDevice& chosen) {
            const Tensor x =
                Tensor::Zeros(chosen.device.get(), {16, 8 + rank}, DType::kF32);
            ops::MatmulNT(x, x).ToFloats();
          });
  const std::string measured = ReadBytes(dir / "products");
  EXPECT_THAT(measured, HasSubstr("\nNT F32 F32 assign plain 16 16 8 "));
  EXPECT_THAT(measured, Not(HasSubstr("16 16 9 ")));
  EXPECT_THAT(cuda_fakes::TakeReports(), testing::IsEmpty());
}

TEST(DeviceChoiceTest, AFileOfChoicesThatIsNoneIsAnErrorEvenWithAuto) {
  cuda_fakes::Reset({.devices = 2});
  const TempDirectory dir;
  WriteBytes(dir / "products", "not this\n");
  OnRanks(2, {DeviceKind::kAuto, dir / "products"}, ExpectCpu,
          "products:1: is not the first line of a file of product choices; let "
          "product_choices name another file or a new one");
  OnRanks(2, {DeviceKind::kCpu, dir / "products"}, ExpectCpu);
}

TEST(DeviceChoiceTest, AnOldGpuIsRefused) {
  cuda_fakes::Reset({.devices = 1, .compute_major = 7});
  OnRanks(1, {DeviceKind::kCuda}, ExpectOwnGpu,
          "GPU 0, Fake GPU 0, has compute capability 7.0; lorica needs 8.0");
  OnRanks(1, {DeviceKind::kAuto},
          ExpectCpuBecause("GPU 0, Fake GPU 0, has compute capability 7.0; "
                           "lorica needs 8.0, as in A100, or later"));
}

}  // namespace
}  // namespace lorica
