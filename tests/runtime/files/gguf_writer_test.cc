#include "runtime/files/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "runtime/dtype.h"
#include "runtime/files/element_encode.h"
#include "runtime/files/gguf.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::HasSubstr;

constexpr uint16_t kHalfInfinity = 0x7c00;

TEST(GgufWriterTest, BytesAreThoseOfTheFormat) {
  const TempDirectory dir;
  const std::string odd(20, 'x');
  const std::string even(64, 'y');
  ASSERT_TRUE(WriteGguf(dir / "a.gguf",
                        {{"general.type", std::string("adapter")},
                         {"count", uint32_t{7}},
                         {"alpha", 1.5f}},
                        {{"first", StoredType::kF32, {5}, odd},
                         {"second", StoredType::kBF16, {4, 8}, even}})
                  .ok());
  GgufBuilder builder;
  builder.String("general.type", "adapter");
  builder.U32("count", 7);
  builder.F32("alpha", 1.5f);
  builder.Tensor("first", StoredType::kF32, {5}, odd);
  builder.Tensor("second", StoredType::kBF16, {4, 8}, even);
  EXPECT_EQ(ReadBytes(dir / "a.gguf"), builder.Build());
}

TEST(GgufWriterTest, WhatIsWrittenReadsBack) {
  const TempDirectory dir;
  const std::string bytes(48, 'z');
  ASSERT_TRUE(WriteGguf(dir / "a.gguf", {{"alpha", 0.1f}},
                        {{"t", StoredType::kF16, {3, 8}, bytes}})
                  .ok());
  const absl::StatusOr<GgufFile> file = GgufFile::Open(dir / "a.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  double alpha = 0;
  ASSERT_TRUE(file->Require("alpha", &alpha).ok());
  EXPECT_EQ(alpha, double{0.1f});
  const StoredTensor& tensor = file->tensors().at("t");
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{3, 8}));
  EXPECT_EQ(tensor.type, StoredType::kF16);
  EXPECT_EQ(tensor.bytes, bytes);
}

TEST(GgufWriterTest, RefusesWhatGgmlCannotRead) {
  const TempDirectory dir;
  const std::string path = dir / "a.gguf";
  const auto refusal = [&](const std::string& name, StoredType type,
                           std::vector<int64_t> shape) {
    const std::string bytes(4, '\0');
    const absl::Status status =
        WriteGguf(path, {}, {{name, type, std::move(shape), bytes}});
    EXPECT_FALSE(std::filesystem::exists(path));
    return std::string(status.message());
  };
  EXPECT_THAT(refusal(std::string(64, 'n'), StoredType::kF32, {1}),
              HasSubstr("at most 63 bytes"));
  EXPECT_THAT(refusal("t", StoredType::kF32, {1, 1, 1, 1, 1}),
              HasSubstr("tensor t [1, 1, 1, 1, 1]: 1 to 4 dimensions"));
  EXPECT_THAT(refusal("t", StoredType::kU32, {1}),
              HasSubstr("no type of ggml"));
  const std::string bytes(4, '\0');
  EXPECT_THAT(WriteGguf(path, {},
                        {{"t", StoredType::kF32, {1}, bytes},
                         {"t", StoredType::kF32, {1}, bytes}})
                  .message(),
              HasSubstr("the name comes twice"));
}

TEST(ElementEncodeTest, EveryHalfIsItsOwnNearest) {
  for (uint32_t half = 0; half <= 0xffff; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << half;
    } else {
      ASSERT_EQ(FloatToHalf(value), half);
    }
  }
}

TEST(ElementEncodeTest, HalvesRoundToTheNearestTiesToEven) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (uint16_t half = 0; half + 1 < kHalfInfinity; ++half) {
    const uint16_t next = static_cast<uint16_t>(half + 1);
    // Between neighbours, exact in a float.
    const float middle = (HalfToFloat(half) + HalfToFloat(next)) / 2;
    ASSERT_EQ(FloatToHalf(middle), half % 2 == 0 ? half : next);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, -infinity)), half);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, infinity)), next);
    ASSERT_EQ(FloatToHalf(-middle), 0x8000u | (half % 2 == 0 ? half : next));
  }
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), kHalfInfinity);
  EXPECT_EQ(FloatToHalf(infinity), kHalfInfinity);
}

TEST(ElementEncodeTest, AValueThatTheTypeCannotHoldIsNamed) {
  char bytes[4];
  const float most = std::numeric_limits<float>::max();
  EXPECT_EQ(EncodeRow(StoredType::kF16, {1.0f, -65520.0f}, bytes), -65520.0f);
  EXPECT_EQ(EncodeRow(StoredType::kBF16, {1.0f, most}, bytes), most);
  EXPECT_EQ(EncodeRow(StoredType::kF32, {most}, bytes), std::nullopt);
  // What was no number before is not the type's fault.
  EXPECT_EQ(EncodeRow(StoredType::kF16, {1.0f, INFINITY}, bytes), std::nullopt);
  EXPECT_EQ(EncodeTensor("t", StoredType::kF16, {7e4f}).status().message(),
            "t has a value of 70000, which F16 cannot hold; choose another "
            "type");
}

}  // namespace
}  // namespace lorica
