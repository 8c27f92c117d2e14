// A file's bytes in memory, read-only.
#ifndef LORICA_RUNTIME_FILES_MAPPED_FILE_H_
#define LORICA_RUNTIME_FILES_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorica {

// Shared by whatever borrows its bytes; the last owner unmaps them. The file
// must not be shortened meanwhile: reading what is gone ends the process.
// Files are replaced by renaming (atomic_file.h), which leaves maps intact.
class MappedFile {
 public:
  // NotFound, PermissionDenied and the like name the path. What is not a
  // regular file is refused; an empty one has no bytes.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(
      const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  absl::string_view bytes() const { return {data_, size_}; }

  // `part` of bytes() is about to be read once, in order.
  void WillRead(absl::string_view part) const;
  // `part` of bytes() is not needed soon: its whole pages no longer count as
  // this process's memory, and come back from the file when read.
  void Release(absl::string_view part) const;

 private:
  MappedFile(std::string path, const char* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const char* data_;
  size_t size_;
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_MAPPED_FILE_H_
