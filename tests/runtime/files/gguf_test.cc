#include "runtime/files/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/gguf_builder.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<GgufFile> Open(const GgufBuilder& builder) {
    WriteBytes(dir_ / "m.gguf", builder.Build());
    return GgufFile::Open(dir_ / "m.gguf");
  }

  TempDirectory dir_;
};

TEST_F(GgufTest, ReadsValuesOfEveryType) {
  GgufBuilder builder;
  builder.Raw("u8", 0, "\xff");
  builder.Raw("i8", 1, "\xff");
  builder.Raw("u16", 2, "\xff\xff");
  builder.Raw("i16", 3, "\xff\xff");
  builder.U32("u32", 0xffffffff);
  builder.Raw("i32", 5, "\xff\xff\xff\xff");
  builder.F32("f32", 0.5f);
  builder.Bool("bool", true);
  builder.String("string", "text");
  builder.Raw("u64", 10, BytesOfValue<uint64_t>(uint64_t{1} << 40));
  builder.Raw("i64", 11, BytesOfValue<int64_t>(-(int64_t{1} << 40)));
  builder.Raw("f64", 12, BytesOfValue<double>(0.1));
  builder.Strings("strings", {"a", "", "c"});
  builder.List("i32s", 5, 2, BytesOfValue<int32_t>(-7) + BytesOfValue(8));
  builder.List("f32s", 6, 2, BytesOfValue(1.5f) + BytesOfValue(-2.0f));
  const auto file = Open(builder);
  ASSERT_TRUE(file.ok()) << file.status();

  const std::pair<const char*, int64_t> integers[] = {
      {"u8", 255},
      {"i8", -1},
      {"u16", 65535},
      {"i16", -1},
      {"i32", -1},
      {"u32", 4294967295},
      {"u64", int64_t{1} << 40},
      {"i64", -(int64_t{1} << 40)}};
  for (const auto& [key, expected] : integers) {
    int64_t value = 0;
    EXPECT_TRUE(file->Require(key, &value).ok()) << key;
    EXPECT_EQ(value, expected) << key;
  }
  double number = 0;
  EXPECT_TRUE(file->Require("f32", &number).ok());
  EXPECT_EQ(number, 0.5);
  EXPECT_TRUE(file->Require("f64", &number).ok());
  EXPECT_EQ(number, 0.1);
  EXPECT_TRUE(file->Require("u8", &number).ok());
  EXPECT_EQ(number, 255.0);
  bool yes = false;
  EXPECT_TRUE(file->Require("bool", &yes).ok());
  EXPECT_TRUE(yes);
  std::string text;
  EXPECT_TRUE(file->Require("string", &text).ok());
  EXPECT_EQ(text, "text");
  std::vector<std::string> strings;
  EXPECT_TRUE(file->Require("strings", &strings).ok());
  EXPECT_THAT(strings, ElementsAre("a", "", "c"));
  std::vector<int64_t> list;
  EXPECT_TRUE(file->Require("i32s", &list).ok());
  EXPECT_THAT(list, ElementsAre(-7, 8));
  std::vector<double> numbers;
  EXPECT_TRUE(file->Require("f32s", &numbers).ok());
  EXPECT_THAT(numbers, ElementsAre(1.5, -2.0));
}

TEST_F(GgufTest, ErrorsOfReadNameFileKeyAndValue) {
  GgufBuilder builder;
  builder.U32("n", 3);
  builder.String("s", "three");
  builder.Strings("l", {"a"});
  const auto file = Open(builder);
  ASSERT_TRUE(file.ok()) << file.status();
  int64_t value = 7;
  EXPECT_TRUE(file->Read("absent", &value).ok());
  EXPECT_EQ(value, 7);
  EXPECT_THAT(file->Require("absent", &value).message(),
              HasSubstr("m.gguf: absent is missing"));
  EXPECT_THAT(file->Read("s", &value).message(),
              HasSubstr("s is \"three\"; an integer is needed"));
  std::string text;
  EXPECT_THAT(file->Read("n", &text).message(),
              HasSubstr("n is 3; a string is needed"));
  EXPECT_THAT(file->Read("l", &text).message(),
              HasSubstr("l is a list of 1 strings"));
}

TEST_F(GgufTest, TensorsHaveRowMajorShapes) {
  GgufBuilder builder;
  builder.Tensor("w", StoredType::kQ4_1, {3, 64}, std::string(120, 'q'));
  builder.Tensor("b", StoredType::kF32, {2}, "01234567");
  const auto file = Open(builder);
  ASSERT_TRUE(file.ok()) << file.status();
  const StoredTensor& w = file->tensors().at("w");
  EXPECT_EQ(w.type, StoredType::kQ4_1);
  EXPECT_THAT(w.shape, ElementsAre(3, 64));
  EXPECT_EQ(w.bytes, std::string(120, 'q'));
  EXPECT_EQ(file->tensors().at("b").bytes, "01234567");
}

TEST_F(GgufTest, HonoursTheAlignment) {
  GgufBuilder builder;
  builder.alignment = 8;
  builder.U32("general.alignment", 8);
  builder.Tensor("a", StoredType::kF32, {1}, "0123");
  builder.Tensor("b", StoredType::kF32, {1}, "4567");
  const auto file = Open(builder);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().at("b").bytes, "4567");
}

TEST_F(GgufTest, AFileOfNothingIsEmpty) {
  GgufBuilder builder;
  builder.version = 2;
  const auto file = Open(builder);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->tensors().empty());
}

struct Refusal {
  const char* name;
  std::function<void(GgufBuilder*)> make;
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const Refusal& refusal) {
  return out << refusal.name;
}

class GgufRefusalTest : public GgufTest,
                        public ::testing::WithParamInterface<Refusal> {};

TEST_P(GgufRefusalTest, NamesFileAndReason) {
  GgufBuilder builder;
  GetParam().make(&builder);
  const auto file = Open(builder);
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(file.status().message(), HasSubstr(dir_ / "m.gguf"));
  EXPECT_THAT(file.status().message(), HasSubstr(GetParam().message));
}

constexpr uint64_t kHuge = uint64_t{1} << 62;

const Refusal kRefusals[] = {
    {"Version1", [](GgufBuilder* b) { b->version = 1; }, "GGUF version 1"},
    {"BigEndian", [](GgufBuilder* b) { b->version = 3u << 24; }, "big-endian"},
    {"KeyTwice",
     [](GgufBuilder* b) {
       b->U32("k", 1);
       b->U32("k", 1);
     },
     "key k comes twice"},
    {"UnknownValueType", [](GgufBuilder* b) { b->Raw("k", 13, "12345678"); },
     "unknown type 13"},
    {"StringBeyondFile",
     [](GgufBuilder* b) { b->Raw("k", 8, BytesOfValue(kHuge)); }, "cut short"},
    {"ListBeyondFile", [](GgufBuilder* b) { b->List("k", 4, kHuge, ""); },
     "cut short"},
    {"ListOfLists", [](GgufBuilder* b) { b->List("k", 9, 1, "0123456789ab"); },
     "list of type 9"},
    {"TooLargeInteger",
     [](GgufBuilder* b) { b->Raw("k", 10, std::string(8, '\xff')); },
     "too large"},
    {"AlignmentOfThree", [](GgufBuilder* b) { b->U32("general.alignment", 3); },
     "general.alignment is 3"},
    {"AlignmentOfZero", [](GgufBuilder* b) { b->U32("general.alignment", 0); },
     "general.alignment is 0"},
    {"UnknownTensorType", [](GgufBuilder* b) { b->TensorAt("t", 4, {1}, 0); },
     "GGML type 4"},
    {"NoDimensions", [](GgufBuilder* b) { b->TensorAt("t", 0, {}, 0); },
     "0 dimensions"},
    {"FiveDimensions",
     [](GgufBuilder* b) {
       b->TensorAt("t", 0, {1, 1, 1, 1, 1}, 0);
     },
     "5 dimensions"},
    {"HalfABlock",
     [](GgufBuilder* b) {
       b->TensorAt("t", 3, {2, 16}, 0);
     },
     "whole blocks"},
    {"ShapeOverflow",
     [](GgufBuilder* b) {
       b->TensorAt("t", 0, {int64_t{1} << 32, int64_t{1} << 32}, 0);
     },
     "impossible"},
    {"NegativeDimension", [](GgufBuilder* b) { b->TensorAt("t", 0, {-1}, 0); },
     "too large"},
    {"OddOffset",
     [](GgufBuilder* b) {
       b->Tensor("s", StoredType::kF32, {16}, std::string(64, 'x'));
       b->TensorAt("t", 0, {1}, 4);
     },
     "multiples of 32"},
    {"BeyondFile",
     [](GgufBuilder* b) {
       b->Tensor("s", StoredType::kF32, {8}, std::string(32, 'x'));
       b->TensorAt("t", 0, {1}, 32);
     },
     "ends beyond the file's 32 bytes"},
    {"HugeOffset",
     [](GgufBuilder* b) { b->TensorAt("t", 0, {8}, ~uint64_t{31}); },
     "ends beyond"},
    {"Overlap",
     [](GgufBuilder* b) {
       b->Tensor("s", StoredType::kF32, {16}, std::string(64, 'x'));
       b->TensorAt("t", 0, {1}, 32);
     },
     "overlaps another"},
    {"TensorTwice",
     [](GgufBuilder* b) {
       b->Tensor("s", StoredType::kF32, {1}, "0123");
       b->Tensor("s", StoredType::kF32, {1}, "0123");
     },
     "comes twice"},
};

INSTANTIATE_TEST_SUITE_P(All, GgufRefusalTest, ::testing::ValuesIn(kRefusals),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace lorica
