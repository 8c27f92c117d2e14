// Measured choices of algorithms for products, on a stand-in for cuBLASLt whose
// algorithms take what the test says.
#include "runtime/cuda/product_choices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/cuda/queue.h"
#include "runtime/ops.h"
#include "tests/support/cuda_fakes/fakes.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using cuda_fakes::Policy;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using Missing = CudaOptions::Missing;

constexpr char kHeader[] =
    "lorica product choices\ndevice Fake GPU 0\ncublasLt 130000\n";

absl::StatusOr<std::unique_ptr<Device>> Open(const std::string& path,
                                             Missing missing) {
  return OpenCudaDevice({.allocation = Allocation::kDirect,
                         .product_choices = path,
                         .missing = missing});
}

// y = x x' of [32, 96], added to ones. Returns its first element.
float Multiply(Device* device) {
  const Tensor x =
      Tensor::FromHost<float>(device, {32, 96}, std::vector<float>(32 * 96, 2));
  Tensor y =
      Tensor::FromHost<float>(device, {32, 32}, std::vector<float>(32 * 32, 1));
  ops::Matmul(MatmulForm::kNT, x, x, 1.0f, Update::kAdd, &y);
  return y.ToFloats()[0];
}

// The time of one product on a device that opens the file.
double TimeWith(const std::string& path, std::vector<double> times,
                Missing missing, size_t version = 130000) {
  cuda_fakes::Reset(
      {.product_microseconds = std::move(times), .cublas_lt_version = version});
  const auto device = Open(path, missing);
  EXPECT_TRUE(device.ok()) << device.status();
  Multiply(device->get());  // Measures, where it does.
  const double before = cuda_fakes::DeviceMicroseconds();
  EXPECT_EQ(Multiply(device->get()), 385.0f);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  return cuda_fakes::DeviceMicroseconds() - before;
}

class ProductChoicesTest : public testing::Test {
 protected:
  const TempDirectory dir_;
  const std::string path_ = dir_ / "products";
};

TEST_F(ProductChoicesTest, TheFastestIsTakenAndLaterRunsTakeItUnmeasured) {
  EXPECT_EQ(TimeWith(path_, {5, 3, 4}, Missing::kUnmeasured), 5);
  EXPECT_EQ(TimeWith(path_, {5, 3, 4}, Missing::kMeasured), 3);
  const std::string measured = ReadBytes(path_);
  EXPECT_THAT(measured, StartsWith(std::string(kHeader) +
                                   "NT F32 F32 add plain 32 32 96 96 96 32 "));
  EXPECT_THAT(measured, HasSubstr(" 3.000 "));
  // The times have changed since, and nobody looks.
  EXPECT_EQ(TimeWith(path_, {5, 9, 4}, Missing::kUnmeasured), 9);
  EXPECT_EQ(TimeWith(path_, {5, 9, 4}, Missing::kMeasured), 9);
  EXPECT_EQ(ReadBytes(path_), measured);
}

TEST_F(ProductChoicesTest, MeasuringLeavesTheResultAlone) {
  for (const Policy policy : cuda_fakes::kPolicies) {
    cuda_fakes::Reset({.policy = policy, .product_microseconds = {2, 1}});
    std::filesystem::remove(path_);
    const auto device = Open(path_, Missing::kMeasured);
    ASSERT_TRUE(device.ok());
    EXPECT_EQ(Multiply(device->get()), 385.0f) << policy;
    EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
  }
}

// The workspace and a result of 16 MiB leave no room for another.
TEST_F(ProductChoicesTest, WithoutMemoryToMeasureInTheFirstProposalStays) {
  cuda_fakes::Reset(
      {.memory_bytes = size_t{56} << 20, .product_microseconds = {5, 3}});
  const auto device = Open(path_, Missing::kMeasured);
  ASSERT_TRUE(device.ok());
  Multiply(device->get());
  const std::string measured = ReadBytes(path_);
  const Tensor x = Tensor::FromHost<float>(device->get(), {2048, 1},
                                           std::vector<float>(2048, 2));
  const double before = cuda_fakes::DeviceMicroseconds();
  const Tensor y = ops::MatmulNT(x, x);
  (*device)->Synchronize();
  EXPECT_EQ(cuda_fakes::DeviceMicroseconds() - before, 5);
  EXPECT_EQ(ReadBytes(path_), measured);
  EXPECT_THAT(cuda_fakes::TakeReports(), IsEmpty());
}

TEST_F(ProductChoicesTest, AnAlgorithmThatTheLibraryRefusesIsNotUsed) {
  EXPECT_EQ(TimeWith(path_, {5, 3, 4}, Missing::kMeasured), 3);
  EXPECT_EQ(TimeWith(path_, {5}, Missing::kUnmeasured), 5);
}

TEST_F(ProductChoicesTest, AFileOfAnotherVersionIsIgnored) {
  TimeWith(path_, {5, 3}, Missing::kMeasured);
  const std::string measured = ReadBytes(path_);
  testing::internal::CaptureStderr();
  EXPECT_EQ(TimeWith(path_, {5, 3}, Missing::kUnmeasured, 130100), 5);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr(path_ + ": ignored, as it was measured on Fake GPU 0 "
                                "with cublasLt 130000"));
  EXPECT_EQ(ReadBytes(path_), measured);
  EXPECT_EQ(TimeWith(path_, {2, 3}, Missing::kMeasured, 130100), 2);
  EXPECT_THAT(ReadBytes(path_), HasSubstr("cublasLt 130100"));
}

TEST_F(ProductChoicesTest, AFileThatIsNoneIsAnErrorWithItsLine) {
  TimeWith(path_, {5, 3}, Missing::kMeasured);
  const std::string good = ReadBytes(path_);
  const std::string line = good.substr(sizeof(kHeader) - 1);
  struct Bad {
    std::string text;
    std::string error;
  };
  const Bad bads[] = {
      {"adapter\n", ":1: is not the first line of a file of product choices"},
      {"lorica product choices\ndevice x\n", ":3: names no version"},
      {good.substr(0, good.size() - 1), ":4: is cut short"},
      {good + "NN F32\n", ":5: has 2 fields, not 16"},
      {good + "N" + line, ":5: names no product"},
      {kHeader + std::string("NT F32 F32 add plain x") + line.substr(23),
       ":4: has \"x"},
      {good.substr(0, good.size() - 3) + "\n", ":4: has no algorithm"}};
  for (const Bad& bad : bads) {
    WriteBytes(path_, bad.text);
    const auto device = Open(path_, Missing::kMeasured);
    EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(device.status().message()),
                StartsWith(path_ + bad.error));
    EXPECT_EQ(ReadBytes(path_), bad.text) << "is left for its owner to look at";
  }
}

TEST_F(ProductChoicesTest, AFileThatCannotBeWrittenShowsBeforeWorkStarts) {
  cuda_fakes::Reset({});
  EXPECT_THAT(
      std::string(Open(dir_ / "absent" + "/products", Missing::kMeasured)
                      .status()
                      .message()),
      HasSubstr("absent"));
}

}  // namespace
}  // namespace lorica
