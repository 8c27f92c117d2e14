#include "runtime/files/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(AtomicFileTest, AppearsAtCommitAndReplacesTheOld) {
  const TempDirectory dir;
  WriteBytes(dir / "a", "old");
  auto file = AtomicFile::Create(dir / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Append("new").ok());
  ASSERT_TRUE(file->Append(" bytes").ok());
  EXPECT_EQ(ReadBytes(dir / "a"), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(ReadBytes(dir / "a"), "new bytes");
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(AtomicFileTest, LeavesNothingWithoutCommit) {
  const TempDirectory dir;
  WriteBytes(dir / "a", "old");
  {
    auto file = AtomicFile::Create(dir / "a");
    ASSERT_TRUE(file.ok()) << file.status();
    AtomicFile moved = *std::move(file);
    ASSERT_TRUE(moved.Append("new").ok());
  }
  EXPECT_EQ(ReadBytes(dir / "a"), "old");
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(AtomicFileTest, WritersOfOnePathDoNotMix) {
  const TempDirectory dir;
  auto first = AtomicFile::Create(dir / "a");
  auto second = AtomicFile::Create(dir / "a");
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE(first->Append("1").ok());
  ASSERT_TRUE(second->Append("22").ok());
  ASSERT_TRUE(second->Commit().ok());
  ASSERT_TRUE(first->Commit().ok());
  EXPECT_EQ(ReadBytes(dir / "a"), "1");
}

TEST(AtomicFileTest, ErrorsNamePathAndReason) {
  const TempDirectory dir;
  const absl::Status missing = WriteFileAtomically(dir / "no/a", "x");
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr(dir / "no/a"));
  std::filesystem::create_directory(dir / "d");
  const absl::Status directory = WriteFileAtomically(dir / "d", "x");
  EXPECT_THAT(directory.message(),
              HasSubstr("cannot rename to " + (dir / "d")));
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("d"));
}

TEST(AtomicFileTest, AFailedWriteLeavesTheOld) {
  const TempDirectory dir;
  WriteBytes(dir / "a", "old");
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small = {.rlim_cur = 1000, .rlim_max = limit.rlim_max};
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status =
      WriteFileAtomically(dir / "a", std::string(4000, 'x'));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  signal(SIGXFSZ, handler);
  EXPECT_THAT(status.message(), HasSubstr("cannot write " + (dir / "a")));
  EXPECT_THAT(status.message(), HasSubstr("too large"));
  EXPECT_EQ(ReadBytes(dir / "a"), "old");
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("a"));
}

TEST(AtomicDirectoryTest, AppearsWholeAtCommit) {
  const TempDirectory dir;
  auto directory = AtomicDirectory::Create(dir / "runs/step_1/");
  ASSERT_TRUE(directory.ok()) << directory.status();
  EXPECT_EQ(directory->partial(), dir / "runs/step_1.partial");
  std::filesystem::create_directory(directory->partial() + "/state");
  WriteBytes(directory->partial() + "/state/x", "1");
  EXPECT_FALSE(std::filesystem::exists(dir / "runs/step_1"));
  ASSERT_TRUE(directory->Commit().ok());
  EXPECT_EQ(ReadBytes(dir / "runs/step_1/state/x"), "1");
  EXPECT_THAT(NamesIn(dir / "runs"), ElementsAre("step_1"));
}

TEST(AtomicDirectoryTest, ReplacesTheOldWhole) {
  const TempDirectory dir;
  std::filesystem::create_directory(dir / "d");
  WriteBytes(dir / "d/old", "1");
  auto directory = AtomicDirectory::Create(dir / "d");
  ASSERT_TRUE(directory.ok()) << directory.status();
  WriteBytes(directory->partial() + "/new", "2");
  ASSERT_TRUE(directory->Commit().ok());
  EXPECT_THAT(NamesIn(dir / "d"), ElementsAre("new"));
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("d"));
}

TEST(AtomicDirectoryTest, LeavesNothingWithoutCommit) {
  const TempDirectory dir;
  {
    const auto directory = AtomicDirectory::Create(dir / "d");
    ASSERT_TRUE(directory.ok()) << directory.status();
    WriteBytes(directory->partial() + "/x", "1");
  }
  EXPECT_TRUE(NamesIn(dir.path()).empty());
}

TEST(AtomicDirectoryTest, StartsAfreshAfterAKilledProcess) {
  const TempDirectory dir;
  std::filesystem::create_directory(dir / "d.partial");
  WriteBytes(dir / "d.partial/stale", "1");
  auto directory = AtomicDirectory::Create(dir / "d");
  ASSERT_TRUE(directory.ok()) << directory.status();
  WriteBytes(directory->partial() + "/fresh", "1");
  ASSERT_TRUE(directory->Commit().ok());
  EXPECT_THAT(NamesIn(dir / "d"), ElementsAre("fresh"));
}

TEST(AtomicDirectoryTest, DoesNotReplaceAFile) {
  const TempDirectory dir;
  WriteBytes(dir / "d", "a file");
  auto directory = AtomicDirectory::Create(dir / "d");
  ASSERT_TRUE(directory.ok()) << directory.status();
  EXPECT_FALSE(directory->Commit().ok());
  EXPECT_EQ(ReadBytes(dir / "d"), "a file");
}

}  // namespace
}  // namespace lorica
