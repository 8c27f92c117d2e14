#include <gtest/gtest.h>

#include <string>

#include "runtime/files/safetensors.h"
#include "tests/support/damage.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

// A table that was accepted must be usable: every byte it names is there.
int64_t SumOfBytes(const Safetensors& file) {
  int64_t sum = 0;
  for (const auto& [name, tensor] : file.tensors) {
    EXPECT_EQ(BytesOf(tensor.type, tensor.shape),
              static_cast<int64_t>(tensor.bytes.size()));
    for (const char byte : tensor.bytes) {
      sum += byte;
    }
  }
  return sum;
}

TEST(SafetensorsDamageTest, GivesAnErrorOrAUsableTable) {
  const TempDirectory dir;
  ASSERT_TRUE(WriteSafetensors(dir / "whole",
                               {{{{"a.b", StoredType::kF32, {2, 3}},
                                  "012345670123456701234567"},
                                 {{"c", StoredType::kBF16, {4}}, "01234567"},
                                 {{"d", StoredType::kU8, {}}, "x"}}},
                               {{"format", "pt"}})
                  .ok());
  const std::string whole = ReadBytes(dir / "whole");
  int refused = 0;
  int accepted = 0;
  int64_t sum = 0;
  ForEachDamage(whole, whole.size() - 33, 4000, [&](const std::string& bytes) {
    WriteBytes(dir / "damaged", bytes);
    const auto file = ReadSafetensors(dir / "damaged");
    if (file.ok()) {
      ++accepted;
      sum += SumOfBytes(*file);
    } else {
      ++refused;
      EXPECT_NE(file.status().message().find(dir / "damaged"),
                std::string::npos);
    }
  });
  // Most damage shows; a changed letter of a name does not.
  EXPECT_GT(refused, 3000);
  EXPECT_GT(accepted, 20);
  EXPECT_NE(sum, 0);
}

}  // namespace
}  // namespace lorica
