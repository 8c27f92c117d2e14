#include "runtime/files/atomic_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

absl::Status Failed(absl::string_view action, const std::string& path,
                    int error) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot ", action, " ", path));
}

absl::Status Failed(absl::string_view action, const std::string& path,
                    const std::error_code& error) {
  return Failed(action, path, error.value());
}

// Without a trailing slash, which would hide the last component.
std::string Normalized(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  return normal.has_filename() ? normal.string()
                               : normal.parent_path().string();
}

std::string ParentOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// Forces a file's contents, or a directory's list of names, to disk.
absl::Status Sync(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return Failed("open", path, errno);
  }
  const auto closer = absl::MakeCleanup([file] { close(file); });
  // Some network and memory file systems have no fsync for directories.
  if (fsync(file) != 0 && errno != EINVAL && errno != ENOTSUP) {
    return Failed("force to disk", path, errno);
  }
  return absl::OkStatus();
}

absl::Status SyncTree(const std::string& directory) {
  std::error_code error;
  fs::recursive_directory_iterator entry(directory, error);
  for (; !error && entry != fs::recursive_directory_iterator();
       entry.increment(error)) {
    if (entry->is_regular_file(error) || entry->is_directory(error)) {
      LORICA_RETURN_IF_ERROR(Sync(entry->path().string()));
    }
  }
  if (error) {
    return Failed("list", directory, error);
  }
  return Sync(directory);
}

// Moves the directory `from` to `to`. One that is there already ends up at
// `from`, or nowhere.
absl::Status MoveDirectory(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) == 0) {
    return absl::OkStatus();
  }
  if (errno != ENOTEMPTY && errno != EEXIST) {
    return Failed("rename to", to, errno);
  }
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(),
                RENAME_EXCHANGE) == 0) {
    return absl::OkStatus();
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return Failed("exchange with", to, errno);
  }
  // A file system that cannot exchange: for an instant nothing is at `to`.
  const std::string old = absl::StrCat(to, ".old");
  std::error_code error;
  fs::remove_all(old, error);
  if (rename(to.c_str(), old.c_str()) != 0) {
    return Failed("rename", to, errno);
  }
  if (rename(from.c_str(), to.c_str()) != 0) {
    const int reason = errno;
    rename(old.c_str(), to.c_str());
    return Failed("rename to", to, reason);
  }
  fs::remove_all(old, error);
  return absl::OkStatus();
}

}  // namespace

AtomicFile::AtomicFile(std::string path, std::string temporary, int file)
    : path_(std::move(path)), temporary_(std::move(temporary)), file_(file) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, "")),
      file_(std::exchange(other.file_, -1)) {}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) {
    close(file_);
  }
  if (!temporary_.empty()) {
    unlink(temporary_.c_str());
  }
}

absl::StatusOr<AtomicFile> AtomicFile::Create(std::string path) {
  static std::atomic<int> count = 0;
  std::string temporary =
      absl::StrCat(path, ".tmp-", getpid(), "-", count.fetch_add(1));
  const int file =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) {
    return Failed("create", temporary, errno);
  }
  return AtomicFile(std::move(path), std::move(temporary), file);
}

absl::Status AtomicFile::Append(absl::string_view bytes) {
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB at a time.
    const size_t piece = std::min(bytes.size(), size_t{1} << 30);
    const ssize_t written = write(file_, bytes.data(), piece);
    if (written < 0 && errno != EINTR) {
      return Failed("write", path_, errno);
    }
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(written, 0)));
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  if (fsync(file_) != 0) {
    return Failed("force to disk", path_, errno);
  }
  // Network file systems report some failed writes only here.
  if (close(std::exchange(file_, -1)) != 0) {
    return Failed("close", path_, errno);
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return Failed("rename to", path_, errno);
  }
  temporary_.clear();
  return Sync(ParentOf(path_));
}

absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view bytes) {
  LORICA_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  LORICA_RETURN_IF_ERROR(file.Append(bytes));
  return file.Commit();
}

AtomicDirectory::AtomicDirectory(std::string path, std::string partial)
    : path_(std::move(path)), partial_(std::move(partial)) {}

AtomicDirectory::AtomicDirectory(AtomicDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      partial_(std::exchange(other.partial_, "")) {}

AtomicDirectory::~AtomicDirectory() {
  if (!partial_.empty()) {
    std::error_code error;
    fs::remove_all(partial_, error);
  }
}

absl::StatusOr<AtomicDirectory> AtomicDirectory::Create(
    const std::string& path) {
  std::string target = Normalized(path);
  std::string partial = absl::StrCat(target, ".partial");
  std::error_code error;
  fs::remove_all(partial, error);
  if (error) {
    return Failed("remove", partial, error);
  }
  fs::create_directories(partial, error);
  if (error) {
    return Failed("create", partial, error);
  }
  return AtomicDirectory(std::move(target), std::move(partial));
}

absl::Status AtomicDirectory::Commit() {
  LORICA_RETURN_IF_ERROR(SyncTree(partial_));
  LORICA_RETURN_IF_ERROR(MoveDirectory(partial_, path_));
  LORICA_RETURN_IF_ERROR(Sync(ParentOf(path_)));
  // What was replaced, if anything, is there now.
  std::error_code error;
  fs::remove_all(std::exchange(partial_, ""), error);
  return absl::OkStatus();
}

}  // namespace lorica
