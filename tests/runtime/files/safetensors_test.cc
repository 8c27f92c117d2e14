#include "runtime/files/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::string LittleEndian(uint64_t value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

std::string FileOf(const std::string& header, const std::string& elements) {
  return LittleEndian(header.size()) + header + elements;
}

std::vector<SafetensorsData> SomeTensors() {
  return {
      {{"tiny", StoredType::kBF16, {2, 1}}, "abcd"},
      {{"z", StoredType::kF32, {2}}, "01234567"},
      {{"none", StoredType::kF32, {0, 3}}, ""},
      {{"one \"quoted\"", StoredType::kI64, {}}, "IIIIIIII"},
  };
}

// As written by the Python package safetensors 0.5 and later.
const char kSomeHeader[] =
    R"({"__metadata__":{"format":"pt"},)"
    R"("one \"quoted\"":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
    R"("none":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]},)"
    R"("z":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
    R"("tiny":{"dtype":"BF16","shape":[2,1],"data_offsets":[16,20]}})";

TEST(SafetensorsTest, WritesTheBytesOfHuggingFacesWriter) {
  const TempDirectory dir;
  ASSERT_TRUE(
      WriteSafetensors(dir / "a", SomeTensors(), {{"format", "pt"}}).ok());
  std::string header = kSomeHeader;
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(ReadBytes(dir / "a"), FileOf(header, "IIIIIIII01234567abcd"));
}

TEST(SafetensorsTest, ReadsBackWhatItWrote) {
  const TempDirectory dir;
  ASSERT_TRUE(
      WriteSafetensors(dir / "a", SomeTensors(), {{"format", "pt"}}).ok());
  const auto file = ReadSafetensors(dir / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->metadata, ElementsAre(Pair("format", "pt")));
  ASSERT_EQ(file->tensors.size(), 4u);
  for (const SafetensorsData& data : SomeTensors()) {
    const StoredTensor& tensor = file->tensors.at(data.entry.name);
    EXPECT_EQ(tensor.name, data.entry.name);
    EXPECT_EQ(tensor.type, data.entry.type);
    EXPECT_EQ(tensor.shape, data.entry.shape);
    EXPECT_EQ(tensor.bytes, data.bytes);
    EXPECT_EQ(tensor.file->path(), dir / "a");
  }
}

TEST(SafetensorsTest, AnEmptyTableIsAFile) {
  const TempDirectory dir;
  ASSERT_TRUE(WriteSafetensors(dir / "a", {}, {}).ok());
  EXPECT_EQ(ReadBytes(dir / "a"), FileOf("{}      ", ""));
  EXPECT_TRUE(ReadSafetensors(dir / "a").ok());
}

TEST(SafetensorsTest, RanksAboveTwoAreListed) {
  const TempDirectory dir;
  ASSERT_TRUE(
      WriteSafetensors(dir / "a",
                       {{{{"t", StoredType::kU8, {1, 2, 1, 3}}, "abcdef"}}}, {})
          .ok());
  const auto file = ReadSafetensors(dir / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->tensors.at("t").shape, ElementsAre(1, 2, 1, 3));
}

struct Refusal {
  const char* name;
  std::string bytes;
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const Refusal& refusal) {
  return out << refusal.name;
}

class SafetensorsRefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(SafetensorsRefusalTest, NamesFileAndReason) {
  const TempDirectory dir;
  WriteBytes(dir / "a", GetParam().bytes);
  const auto file = ReadSafetensors(dir / "a");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(file.status().message(), HasSubstr(dir / "a"));
  EXPECT_THAT(file.status().message(), HasSubstr(GetParam().message));
}

// A header with one tensor of 4 elements of U8, whose entry is `entry`.
std::string One(const std::string& entry) {
  return FileOf("{\"t\":" + entry + "}", "abcd");
}

const Refusal kRefusals[] = {
    {"Empty", "", "too few"},
    {"SevenBytes", "1234567", "too few"},
    {"HeaderLongerThanFile", LittleEndian(3) + "{}", "cut short"},
    {"HeaderOfAllOnes", LittleEndian(~uint64_t{0}) + "{}", "cut short"},
    {"HeaderAboveLimit", LittleEndian(100'000'001) + "{}", "cut short"},
    {"NoHeader", LittleEndian(0), "not JSON"},
    {"SpaceBeforeHeader", FileOf(" {}", ""), "not JSON"},
    {"ListHeader", FileOf("[]", ""), "not JSON"},
    {"UnendedHeader", FileOf("{", ""), "not valid JSON"},
    {"NameTwice",
     FileOf(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
            "ab"),
     "there twice"},
    {"Overlap",
     FileOf(R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
            R"("u":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
            "abc"),
     "overlap at byte 1"},
    {"SameBytes",
     FileOf(R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
            R"("u":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
            "ab"),
     "overlap at byte 0"},
    {"Hole",
     FileOf(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("u":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
            "abc"),
     "hole at byte 1"},
    {"HoleAtStart",
     FileOf("{\"t\":{\"dtype\":\"U8\",\"shape\":[1],"
            "\"data_offsets\":[1,2]}}",
            "ab"),
     "hole at byte 0"},
    {"BytesLeftOver", FileOf("{}", "abc"), "3 bytes at the end"},
    {"CutShort", One(R"({"dtype":"U8","shape":[5],"data_offsets":[0,5]})"),
     "4 bytes of elements"},
    {"WrongShape", One(R"({"dtype":"U8","shape":[3],"data_offsets":[0,4]})"),
     "tensor t: 4 bytes do not hold U8 [3]"},
    {"ShapeOverflow",
     One(R"({"dtype":"U8","shape":[4294967296,4294967297],)"
         R"("data_offsets":[0,4]})"),
     "do not hold"},
    {"HugeOffset",
     One(R"({"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615]})"),
     "list of sizes"},
    {"NegativeOffset",
     One(R"({"dtype":"U8","shape":[4],"data_offsets":[-4,0]})"),
     "list of sizes"},
    {"ReversedOffsets",
     One(R"({"dtype":"U8","shape":[4],"data_offsets":[4,0]})"), "[4, 0]"},
    {"OneOffset", One(R"({"dtype":"U8","shape":[4],"data_offsets":[0]})"),
     "[0]"},
    {"NegativeShape",
     One(R"({"dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]})"),
     "list of sizes"},
    {"FractionalShape",
     One(R"({"dtype":"U8","shape":[4.0],"data_offsets":[0,4]})"),
     "list of sizes"},
    {"NoShape", One(R"({"dtype":"U8","data_offsets":[0,4]})"), "shape"},
    {"UnknownType", One(R"({"dtype":"Q9","shape":[4],"data_offsets":[0,4]})"),
     "dtype is \"Q9\""},
    {"NumberType", One(R"({"dtype":8,"shape":[4],"data_offsets":[0,4]})"),
     "dtype is 8"},
    {"EntryIsNumber", One("4"), "object is needed"},
    {"MetadataOfNumbers", FileOf(R"({"__metadata__":{"a":1}})", ""), "a is 1"},
    {"MetadataNull", FileOf(R"({"__metadata__":null})", ""),
     "object is needed"},
};

INSTANTIATE_TEST_SUITE_P(All, SafetensorsRefusalTest,
                         ::testing::ValuesIn(kRefusals),
                         [](const auto& test) { return test.param.name; });

class SafetensorsDirectoryTest : public ::testing::Test {
 protected:
  void WriteShard(const std::string& name, const std::string& tensor) {
    ASSERT_TRUE(WriteSafetensors(dir_ / name,
                                 {{{{tensor, StoredType::kU8, {1}}, "x"}}}, {})
                    .ok());
  }
  void WriteIndex(const std::string& map) {
    WriteBytes(dir_ / "model.safetensors.index.json",
               R"({"metadata":{"total_size":2},"weight_map":)" + map + "}");
  }
  std::string Error() {
    return std::string(
        ReadSafetensorsDirectory(dir_.path()).status().message());
  }

  TempDirectory dir_;
};

TEST_F(SafetensorsDirectoryTest, SeveralFilesAreOneTable) {
  WriteShard("1.safetensors", "a");
  WriteShard("2.safetensors", "b");
  WriteIndex(R"({"a":"1.safetensors","b":"2.safetensors"})");
  const auto table = ReadSafetensorsDirectory(dir_.path());
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->at("a").file->path(), dir_ / "1.safetensors");
  EXPECT_EQ(table->at("b").file->path(), dir_ / "2.safetensors");
}

TEST_F(SafetensorsDirectoryTest, OneFileNeedsNoIndex) {
  WriteShard("model.safetensors", "a");
  WriteIndex("broken");
  const auto table = ReadSafetensorsDirectory(dir_.path());
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 1u);
}

TEST_F(SafetensorsDirectoryTest, ErrorsNameTheIndexOrTheFile) {
  EXPECT_THAT(Error(), HasSubstr("model.safetensors"));
  WriteShard("1.safetensors", "a");
  WriteIndex(R"({"b":"1.safetensors"})");
  EXPECT_THAT(Error(), HasSubstr("b is \"1.safetensors\"; that file has no"));
  WriteIndex(R"({"a":"2.safetensors"})");
  EXPECT_THAT(Error(), HasSubstr(dir_ / "2.safetensors"));
  WriteIndex(R"({"a":"../1.safetensors"})");
  EXPECT_THAT(Error(), HasSubstr("a file beside the index"));
  WriteIndex(R"({"a":1})");
  EXPECT_THAT(Error(), HasSubstr("a is 1; a string"));
  WriteIndex("[]");
  EXPECT_THAT(Error(), HasSubstr("weight_map is []"));
  WriteBytes(dir_ / "model.safetensors.index.json", "[]");
  EXPECT_THAT(Error(), HasSubstr("an object is needed"));
}

}  // namespace
}  // namespace lorica
