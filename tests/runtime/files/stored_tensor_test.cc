#include "runtime/files/stored_tensor.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>

namespace lorica {
namespace {

TEST(StoredTypeTest, EveryTypeFindsItselfByNameOrNumber) {
  for (int i = 0; i <= static_cast<int>(StoredType::kIq4Xs); ++i) {
    const StoredType type = static_cast<StoredType>(i);
    const StoredTypeInfo& info = InfoOf(type);
    EXPECT_EQ(info.type, type) << info.name;
    const std::optional<StoredType> by_name = StoredTypeOf(info.name);
    const std::optional<StoredType> by_id =
        info.ggml_id < 0
            ? std::nullopt
            : StoredTypeOfGgml(static_cast<uint32_t>(info.ggml_id));
    EXPECT_TRUE(by_name == type || by_id == type) << info.name;
  }
  EXPECT_EQ(StoredTypeOf("Q4_1"), std::nullopt);
  EXPECT_EQ(StoredTypeOf(""), std::nullopt);
  EXPECT_EQ(StoredTypeOfGgml(0xffffffff), std::nullopt);
}

TEST(BytesOfTest, CountsWholeBlocks) {
  EXPECT_EQ(BytesOf(StoredType::kBF16, {3, 4}), 24);
  EXPECT_EQ(BytesOf(StoredType::kF32, {}), 4);
  EXPECT_EQ(BytesOf(StoredType::kF32, {0, 4}), 0);
  EXPECT_EQ(BytesOf(StoredType::kF4, {3, 2}), 3);
  EXPECT_EQ(BytesOf(StoredType::kF4, {3, 1}), std::nullopt);
  EXPECT_EQ(BytesOf(StoredType::kQ4_1, {3, 64}), 120);
  EXPECT_EQ(BytesOf(StoredType::kQ4_1, {64, 3}), std::nullopt);
}

TEST(BytesOfTest, RefusesWhatOverflows) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  EXPECT_EQ(BytesOf(StoredType::kF32, {kHuge}), std::nullopt);
  EXPECT_EQ(BytesOf(StoredType::kU8, {kHuge, 2}), std::nullopt);
  EXPECT_EQ(BytesOf(StoredType::kU8, {-1}), std::nullopt);
  EXPECT_EQ(BytesOf(StoredType::kU8, {kHuge}), kHuge);
}

}  // namespace
}  // namespace lorica
