#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "runtime/files/gguf.h"
#include "tests/support/damage.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

GgufBuilder SmallFile() {
  GgufBuilder builder;
  builder.String("general.architecture", "llama");
  builder.U32("general.alignment", 32);
  builder.F32("rope", 1e4f);
  builder.Strings("tokens", {"a", "bc"});
  builder.List("types", 5, 2, "01234567");
  builder.Tensor("w.weight", StoredType::kQ8_0, {2, 32}, std::string(68, 'q'));
  builder.Tensor("n", StoredType::kF32, {3}, "012345670123");
  return builder;
}

// A table that was accepted must be usable: every byte it names is there.
int64_t SumOfBytes(const GgufFile& file) {
  int64_t sum = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    EXPECT_EQ(BytesOf(tensor.type, tensor.shape),
              static_cast<int64_t>(tensor.bytes.size()));
    for (const char byte : tensor.bytes) {
      sum += byte;
    }
  }
  for (const auto& [key, value] : file.values()) {
    sum += static_cast<int64_t>(GgufValueToString(value).size());
  }
  return sum;
}

TEST(GgufDamageTest, GivesAnErrorOrAUsableTable) {
  const TempDirectory dir;
  const std::string whole = SmallFile().Build();
  int refused = 0;
  int accepted = 0;
  int64_t sum = 0;
  ForEachDamage(whole, whole.size() - 128, 6000, [&](const std::string& bytes) {
    WriteBytes(dir / "damaged", bytes);
    const auto file = GgufFile::Open(dir / "damaged");
    if (file.ok()) {
      ++accepted;
      sum += SumOfBytes(*file);
    } else {
      ++refused;
      EXPECT_NE(file.status().message().find(dir / "damaged"),
                std::string::npos);
    }
  });
  EXPECT_GT(refused, 3000);
  EXPECT_GT(accepted, 100);
  EXPECT_NE(sum, 0);
}

TEST(GgufDamageTest, EveryCutIsRefused) {
  const TempDirectory dir;
  const std::string whole = SmallFile().Build();
  constexpr size_t kPadding = 20;  // After the last tensor.
  for (size_t length = 0; length < whole.size() - kPadding; ++length) {
    WriteBytes(dir / "cut", whole.substr(0, length));
    EXPECT_FALSE(GgufFile::Open(dir / "cut").ok()) << length;
  }
}

}  // namespace
}  // namespace lorica
