#include "runtime/files/block_decode.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

constexpr StoredType kDecodable[] = {StoredType::kF32,  StoredType::kF16,
                                     StoredType::kBF16, StoredType::kQ4_0,
                                     StoredType::kQ4_1, StoredType::kQ8_0};

std::vector<float> Decoded(StoredType type, const std::string& row,
                           Range cols) {
  std::vector<float> values(static_cast<size_t>(cols.size()));
  DecodeRow(type, row.data(), cols, values.data());
  return values;
}

// Blocks whose scales are small finite numbers and whose rest is random.
std::string RandomRow(StoredType type, int64_t elements) {
  const StoredTypeInfo& info = InfoOf(type);
  std::mt19937 random(static_cast<uint32_t>(type));
  std::string row;
  for (int64_t i = 0; i < elements / info.block_elements; ++i) {
    std::string block(static_cast<size_t>(info.block_bytes), '\0');
    for (char& byte : block) {
      byte = static_cast<char>(random());
    }
    // The high byte of each half, bfloat16 or float: an exponent near zero.
    const std::string highs = type == StoredType::kF32    ? "3"
                              : type == StoredType::kQ4_1 ? "13"
                                                          : "1";
    for (const char at : highs) {
      block[static_cast<size_t>(at - '0')] =
          static_cast<char>(0x38 | (random() & 0x83));
    }
    row += block;
  }
  return row;
}

TEST(BlockDecodeTest, DecodesKnownBlocks) {
  // Half 0x3800 is 0.5, 0xbc00 is -1.
  std::string nibbles;
  for (int j = 0; j < 16; ++j) {
    nibbles += static_cast<char>(j | (15 - j) << 4);
  }
  const std::vector<float> q4_1 = Decoded(
      StoredType::kQ4_1, std::string("\x00\x38\x00\xbc", 4) + nibbles, {0, 32});
  const std::vector<float> q4_0 =
      Decoded(StoredType::kQ4_0, std::string("\x00\x38", 2) + nibbles, {0, 32});
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(q4_1[j], 0.5f * static_cast<float>(j) - 1.0f);
    EXPECT_EQ(q4_1[j + 16], 0.5f * static_cast<float>(15 - j) - 1.0f);
    EXPECT_EQ(q4_0[j], 0.5f * static_cast<float>(j - 8));
    EXPECT_EQ(q4_0[j + 16], 0.5f * static_cast<float>(7 - j));
  }
  std::string bytes = std::string("\x00\x38", 2);
  for (int j = 0; j < 32; ++j) {
    bytes += static_cast<char>(j * 8 - 128);
  }
  const std::vector<float> q8_0 = Decoded(StoredType::kQ8_0, bytes, {0, 32});
  for (int j = 0; j < 32; ++j) {
    EXPECT_EQ(q8_0[j], 0.5f * static_cast<float>(j * 8 - 128));
  }
  EXPECT_EQ(
      Decoded(StoredType::kF16, std::string("\x00\x38\x01\x00", 4), {0, 2}),
      (std::vector<float>{0.5f, 0x1p-24f}));
  EXPECT_EQ(Decoded(StoredType::kBF16, "\x80\xbf", {0, 1}),
            std::vector<float>{-1.0f});
}

TEST(BlockDecodeTest, AnyColumnsEqualThoseOfTheWholeRow) {
  for (const StoredType type : kDecodable) {
    const std::string row = RandomRow(type, 96);
    const std::vector<float> whole = Decoded(type, row, {0, 96});
    for (int64_t begin = 0; begin <= 96; ++begin) {
      for (int64_t end = begin; end <= 96; ++end) {
        EXPECT_EQ(
            Decoded(type, row, {begin, end}),
            std::vector<float>(whole.begin() + begin, whole.begin() + end))
            << type << " " << begin << " " << end;
      }
    }
  }
}

TEST(BlockDecodeTest, BFloat16IsTheRoundedFloat) {
  for (const StoredType type : kDecodable) {
    const std::string row = RandomRow(type, 96);
    const std::vector<float> floats = Decoded(type, row, {3, 90});
    std::vector<BFloat16> rounded(87);
    DecodeRow(type, row.data(), {3, 90}, rounded.data());
    for (size_t i = 0; i < rounded.size(); ++i) {
      EXPECT_EQ(rounded[i].bits, BFloat16(floats[i]).bits) << type << " " << i;
    }
  }
}

TEST(BlockDecodeTest, RowsComeInTheOrderAskedFor) {
  const TempDirectory dir;
  std::string bytes;
  for (int i = 0; i < 12; ++i) {
    const float value = static_cast<float>(i);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  WriteBytes(dir / "a", bytes);
  const auto file = MappedFile::Open(dir / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  const StoredTensor tensor{.name = "t",
                            .type = StoredType::kF32,
                            .shape = {4, 3},
                            .bytes = (*file)->bytes(),
                            .file = *file};
  std::vector<float> out(4);
  DecodeMatrix(tensor,
               {.rows = {1, 3},
                .cols = {1, 3},
                .source_row = [](int64_t row) { return 3 - row; }},
               DType::kF32, out.data());
  EXPECT_EQ(out, (std::vector<float>{7, 8, 4, 5}));
  DecodeMatrix(tensor,
               {.rows = {0, 0},
                .cols = {0, 3},
                .source_row = [](int64_t row) { return row; }},
               DType::kF32, nullptr);
}

TEST(BlockDecodeTest, OtherTypesAreNotDecodable) {
  EXPECT_FALSE(CanDecode(StoredType::kQ6K));
  EXPECT_FALSE(CanDecode(StoredType::kI64));
  for (const StoredType type : kDecodable) {
    EXPECT_TRUE(CanDecode(type)) << type;
  }
}

}  // namespace
}  // namespace lorica
