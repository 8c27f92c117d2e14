#include "runtime/files/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>

#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::HasSubstr;

TEST(MappedFileTest, ShowsTheBytesAfterTheFileIsReplaced) {
  const TempDirectory dir;
  WriteBytes(dir / "a", "first");
  const auto file = MappedFile::Open(dir / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  WriteBytes(dir / "b", "second, longer");
  std::filesystem::rename(dir / "b", dir / "a");
  EXPECT_EQ((*file)->bytes(), "first");
  EXPECT_EQ((*file)->path(), dir / "a");
}

TEST(MappedFileTest, ReleasedBytesComeBack) {
  const TempDirectory dir;
  const std::string bytes(1 << 20, 'x');
  WriteBytes(dir / "a", bytes);
  const auto file = MappedFile::Open(dir / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  (*file)->WillRead((*file)->bytes().substr(5, 100000));
  (*file)->Release((*file)->bytes().substr(5, 100000));
  (*file)->Release((*file)->bytes().substr(5, 1));
  EXPECT_EQ((*file)->bytes(), bytes);
}

TEST(MappedFileTest, AnEmptyFileHasNoBytes) {
  const TempDirectory dir;
  WriteBytes(dir / "a", "");
  const auto file = MappedFile::Open(dir / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->bytes().empty());
  (*file)->WillRead((*file)->bytes());
}

TEST(MappedFileTest, RefusesWhatIsNoRegularFile) {
  const TempDirectory dir;
  EXPECT_EQ(MappedFile::Open(dir / "none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(MappedFile::Open(dir / "none").status().message(),
              HasSubstr(dir / "none"));
  EXPECT_THAT(MappedFile::Open(dir.path()).status().message(),
              HasSubstr("is a directory"));
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(MappedFile::Open(dir / "pipe").status().message(),
              HasSubstr("special file"));
}

}  // namespace
}  // namespace lorica
