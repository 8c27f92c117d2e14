#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/check.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Widest elements first, so that each tensor is aligned to its element.
void SortForLayout(std::vector<SafetensorsEntry>* entries) {
  std::sort(entries->begin(), entries->end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tuple(-InfoOf(a.type).block_bytes, a.name) <
                     std::tuple(-InfoOf(b.type).block_bytes, b.name);
            });
}

std::string Quoted(const std::string& text) { return Json(text).dump(); }

// The header's text, padded so that the elements start on a multiple of 8.
absl::StatusOr<std::string> HeaderFor(
    const std::string& path, absl::Span<const SafetensorsEntry> entries,
    const SafetensorsMetadata& metadata, size_t* total) {
  std::vector<std::string> members;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata) {
      pairs.push_back(absl::StrCat(Quoted(key), ":", Quoted(value)));
    }
    members.push_back(
        absl::StrCat("\"__metadata__\":{", absl::StrJoin(pairs, ","), "}"));
  }
  int64_t offset = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::optional<int64_t> bytes = BytesOf(entry.type, entry.shape);
    if (!bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": cannot hold ", entry.name, " as ",
                       NameOf(entry.type), " ", ShapeToString(entry.shape)));
    }
    members.push_back(absl::StrCat(
        Quoted(entry.name), ":{\"dtype\":\"", NameOf(entry.type),
        "\",\"shape\":[", absl::StrJoin(entry.shape, ","),
        "],\"data_offsets\":[", offset, ",", offset + *bytes, "]}"));
    offset += *bytes;
  }
  std::string header = absl::StrCat("{", absl::StrJoin(members, ","), "}");
  header.resize((header.size() + 7) / 8 * 8, ' ');
  *total = static_cast<size_t>(offset);
  return header;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(AtomicFile file,
                                     std::vector<SafetensorsEntry> entries,
                                     size_t bytes_due)
    : file_(std::move(file)),
      entries_(std::move(entries)),
      bytes_due_(bytes_due) {}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(
    const std::string& path, std::vector<SafetensorsEntry> entries,
    const SafetensorsMetadata& metadata) {
  SortForLayout(&entries);
  std::set<absl::string_view> names;
  for (const SafetensorsEntry& entry : entries) {
    CHECK(names.insert(entry.name).second) << entry.name << " comes twice";
  }
  size_t total = 0;
  LORICA_ASSIGN_OR_RETURN(const std::string header,
                          HeaderFor(path, entries, metadata, &total));
  LORICA_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  const uint64_t length = header.size();
  char prefix[sizeof(length)];
  std::memcpy(prefix, &length, sizeof(length));
  LORICA_RETURN_IF_ERROR(
      file.Append(absl::string_view(prefix, sizeof(prefix))));
  LORICA_RETURN_IF_ERROR(file.Append(header));
  return SafetensorsWriter(std::move(file), std::move(entries), total);
}

absl::Status SafetensorsWriter::Append(absl::string_view bytes) {
  CHECK_LE(bytes.size(), bytes_due_);
  bytes_due_ -= bytes.size();
  return file_.Append(bytes);
}

absl::Status SafetensorsWriter::Commit() {
  CHECK_EQ(bytes_due_, 0u);
  return file_.Commit();
}

absl::Status WriteSafetensors(const std::string& path,
                              absl::Span<const SafetensorsData> tensors,
                              const SafetensorsMetadata& metadata) {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, absl::string_view> bytes;
  for (const SafetensorsData& tensor : tensors) {
    entries.push_back(tensor.entry);
    bytes[tensor.entry.name] = tensor.bytes;
  }
  LORICA_ASSIGN_OR_RETURN(
      SafetensorsWriter writer,
      SafetensorsWriter::Create(path, std::move(entries), metadata));
  for (const SafetensorsEntry& entry : writer.entries()) {
    LORICA_RETURN_IF_ERROR(writer.Append(bytes[entry.name]));
  }
  return writer.Commit();
}

}  // namespace lorica
