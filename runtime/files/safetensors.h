// Hugging Face's container of tensors: a JSON header, then the elements.
#ifndef LORICA_RUNTIME_FILES_SAFETENSORS_H_
#define LORICA_RUNTIME_FILES_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

using SafetensorsMetadata = std::map<std::string, std::string>;

struct Safetensors {
  TensorTable tensors;
  SafetensorsMetadata metadata;
};

// Checks everything the header claims against the file before returning: known
// types, shapes that give the sizes, tensors that fill the rest of the file
// without hole or overlap, no name twice. Reads no element.
absl::StatusOr<Safetensors> ReadSafetensors(const std::string& path);

// The tensors of a model directory: of its model.safetensors or, where there is
// none, of the files that its model.safetensors.index.json lists, as one table.
absl::StatusOr<TensorTable> ReadSafetensorsDirectory(
    const std::string& directory);

// A tensor to be written.
struct SafetensorsEntry {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
};

// Writes a file whose tensors need not be in memory together. The file's bytes
// are a function of the entries, the metadata and the elements alone, and equal
// those of Hugging Face's writer.
class SafetensorsWriter {
 public:
  static absl::StatusOr<SafetensorsWriter> Create(
      const std::string& path, std::vector<SafetensorsEntry> entries,
      const SafetensorsMetadata& metadata);

  // The entries in the order in which Append must receive their elements.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  // Any piece of the elements, row-major and little-endian, in order.
  absl::Status Append(absl::string_view bytes);
  // Puts the file in place, when all elements were appended. Call it once.
  absl::Status Commit();

 private:
  SafetensorsWriter(AtomicFile file, std::vector<SafetensorsEntry> entries,
                    size_t bytes_due);

  AtomicFile file_;
  std::vector<SafetensorsEntry> entries_;
  size_t bytes_due_;
};

// A tensor to be written, and its elements.
struct SafetensorsData {
  SafetensorsEntry entry;
  absl::string_view bytes;
};

absl::Status WriteSafetensors(const std::string& path,
                              absl::Span<const SafetensorsData> tensors,
                              const SafetensorsMetadata& metadata);

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_SAFETENSORS_H_
