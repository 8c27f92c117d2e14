// Files and directories that are there whole or not at all: written beside
// their final place, forced to disk, then renamed. A crash at any point leaves
// what was there before. Errors name the path and the system's reason, such as
// a full disk.
#ifndef LORICA_RUNTIME_FILES_ATOMIC_FILE_H_
#define LORICA_RUNTIME_FILES_ATOMIC_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorica {

// A file being written. Destroyed without Commit, it leaves nothing.
class AtomicFile {
 public:
  // The directory of `path` must exist.
  static absl::StatusOr<AtomicFile> Create(std::string path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  absl::Status Append(absl::string_view bytes);
  // Puts the file in place, replacing one of that name. Call it once.
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int file);

  std::string path_;
  std::string temporary_;  // Empty when committed or moved from.
  int file_;
};

absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view bytes);

// A directory being filled. Destroyed without Commit, it leaves nothing.
class AtomicDirectory {
 public:
  // Creates the parents of `path` that are missing, and a fresh directory
  // `path`.partial in place of whatever a killed process left there. So the
  // ranks of a run may fill it together once one of them has created it; no two
  // runs may write the same path at once.
  static absl::StatusOr<AtomicDirectory> Create(const std::string& path);
  AtomicDirectory(AtomicDirectory&& other) noexcept;
  AtomicDirectory& operator=(AtomicDirectory&&) = delete;
  ~AtomicDirectory();

  // Where to put the files until Commit.
  const std::string& partial() const { return partial_; }
  // Forces every file below to disk and puts the directory in place, replacing
  // one of that name. Call it once, when all writers are done.
  absl::Status Commit();

 private:
  AtomicDirectory(std::string path, std::string partial);

  std::string path_;
  std::string partial_;  // Empty when committed or moved from.
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_ATOMIC_FILE_H_
