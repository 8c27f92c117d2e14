#include "runtime/files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace lorica {
namespace {

// Tells the kernel `advice` about the pages of `part`: those it touches
// (outward) or those it fills (inward).
enum class Rounding { kOutward, kInward };

void Advise(absl::string_view part, Rounding rounding, int advice) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  uintptr_t begin = reinterpret_cast<uintptr_t>(part.data());
  uintptr_t end = begin + part.size();
  if (rounding == Rounding::kOutward) {
    begin = begin / page * page;
  } else {
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
  }
  if (begin < end) {
    // Only advice: nothing depends on whether it is taken.
    (void)madvise(reinterpret_cast<void*>(begin), end - begin, advice);
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(
    const std::string& path) {
  // Not blocking, so that a pipe is refused below rather than waited for.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  const auto closer = absl::MakeCleanup([file] { close(file); });
  struct stat info;
  if (fstat(file, &info) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, S_ISDIR(info.st_mode) ? " is a directory" : " is a special file",
        "; a regular file is needed"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  const char* data = nullptr;
  if (size > 0) {
    void* map = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (map == MAP_FAILED) {
      return absl::ErrnoToStatus(
          errno, absl::StrCat(path, ": cannot map ", size, " bytes"));
    }
    data = static_cast<const char*>(map);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (size_ > 0) {
    munmap(const_cast<char*>(data_), size_);
  }
}

void MappedFile::WillRead(absl::string_view part) const {
  Advise(part, Rounding::kOutward, MADV_WILLNEED);
}

void MappedFile::Release(absl::string_view part) const {
  Advise(part, Rounding::kInward, MADV_DONTNEED);
}

}  // namespace lorica
