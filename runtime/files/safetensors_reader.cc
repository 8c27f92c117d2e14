#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/files/json.h"
#include "runtime/files/mapped_file.h"
#include "runtime/files/safetensors.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian and used in place");

constexpr uint64_t kHeaderLimit = 100'000'000;
constexpr absl::string_view kMetadataKey = "__metadata__";

struct Sections {
  absl::string_view header;
  absl::string_view buffer;
};

absl::StatusOr<Sections> Split(const MappedFile& file) {
  const absl::string_view bytes = file.bytes();
  uint64_t length = 0;
  if (bytes.size() < sizeof(length)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": ", bytes.size(),
                     " bytes are too few for a safetensors file"));
  }
  std::memcpy(&length, bytes.data(), sizeof(length));
  const uint64_t rest = bytes.size() - sizeof(length);
  if (length > kHeaderLimit || length > rest) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": not a safetensors file, or cut short: its header has ",
        length, " bytes, the file ", rest, " more; at most ", kHeaderLimit,
        " are allowed"));
  }
  const Sections sections{.header = bytes.substr(sizeof(length), length),
                          .buffer = bytes.substr(sizeof(length) + length)};
  if (!absl::StartsWith(sections.header, "{")) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": not a safetensors file: its header is not JSON"));
  }
  return sections;
}

absl::StatusOr<std::vector<int64_t>> ReadExtents(const JsonFields& fields,
                                                 absl::string_view name) {
  const Json* list = fields.Find(name);
  const bool extents =
      list != nullptr && list->is_array() &&
      std::all_of(list->begin(), list->end(), [](const Json& item) {
        return item.is_number_unsigned() && item.get<uint64_t>() >> 62 == 0;
      });
  if (!extents) {
    return fields.Refuse(name, "a list of sizes is needed");
  }
  return list->get<std::vector<int64_t>>();
}

absl::StatusOr<StoredTensor> ReadEntry(
    const std::string& name, const Json& json, absl::string_view buffer,
    const std::shared_ptr<const MappedFile>& file) {
  const std::string place = absl::StrCat(file->path(), ": tensor ", name);
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, place));
  std::string type_name;
  LORICA_RETURN_IF_ERROR(fields.Require("dtype", &type_name));
  const std::optional<StoredType> type = StoredTypeOf(type_name);
  if (!type) {
    return fields.Refuse("dtype", "no such type is known");
  }
  LORICA_ASSIGN_OR_RETURN(std::vector<int64_t> shape,
                          ReadExtents(fields, "shape"));
  LORICA_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets,
                          ReadExtents(fields, "data_offsets"));
  const int64_t size = static_cast<int64_t>(buffer.size());
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > size) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": data_offsets are ", ShapeToString(offsets),
                     "; the file holds ", size, " bytes of elements"));
  }
  const int64_t bytes = offsets[1] - offsets[0];
  if (BytesOf(*type, shape) != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": ", bytes, " bytes do not hold ", type_name, " ",
                     ShapeToString(shape)));
  }
  return StoredTensor{.name = name,
                      .type = *type,
                      .shape = std::move(shape),
                      .bytes = buffer.substr(offsets[0], bytes),
                      .file = file};
}

// That the tensors, one after the other, are the whole buffer.
absl::Status CheckCoverage(const TensorTable& tensors, absl::string_view buffer,
                           const std::string& path) {
  std::vector<absl::string_view> parts;
  for (const auto& [name, tensor] : tensors) {
    parts.push_back(tensor.bytes);
  }
  std::sort(
      parts.begin(), parts.end(), [](absl::string_view a, absl::string_view b) {
        return std::pair(a.data(), a.size()) < std::pair(b.data(), b.size());
      });
  size_t end = 0;
  for (const absl::string_view part : parts) {
    const size_t begin = static_cast<size_t>(part.data() - buffer.data());
    if (begin != end) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensors ", begin < end ? "overlap" : "leave a hole",
          " at byte ", std::min(begin, end), " of the elements"));
    }
    end += part.size();
  }
  if (end != buffer.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", buffer.size() - end,
                     " bytes at the end belong to no tensor"));
  }
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsMetadata> ReadMetadata(const Json& json,
                                                 const std::string& path) {
  const std::string place = absl::StrCat(path, ": ", kMetadataKey);
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, place));
  SafetensorsMetadata metadata;
  for (const auto& item : json.items()) {
    LORICA_RETURN_IF_ERROR(fields.Require(item.key(), &metadata[item.key()]));
  }
  return metadata;
}

// The tensors listed by `index_path`, from the files beside it.
absl::StatusOr<TensorTable> ReadIndexed(const std::string& index_path,
                                        const std::string& directory) {
  LORICA_ASSIGN_OR_RETURN(const Json index, ReadJsonFile(index_path));
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields,
                          JsonFields::Of(index, index_path));
  const Json* map = fields.Find("weight_map");
  if (map == nullptr || !map->is_object()) {
    return fields.Refuse("weight_map", "an object of file names is needed");
  }
  LORICA_ASSIGN_OR_RETURN(
      const JsonFields places,
      JsonFields::Of(*map, absl::StrCat(index_path, ": weight_map")));
  std::map<std::string, TensorTable> files;
  TensorTable result;
  for (const auto& item : map->items()) {
    std::string file;
    LORICA_RETURN_IF_ERROR(places.Require(item.key(), &file));
    if (file.empty() || file[0] == '.' || absl::StrContains(file, '/')) {
      return places.Refuse(item.key(), "a file beside the index is needed");
    }
    if (files.count(file) == 0) {
      LORICA_ASSIGN_OR_RETURN(Safetensors shard, ReadSafetensors(absl::StrCat(
                                                     directory, "/", file)));
      files[file] = std::move(shard.tensors);
    }
    const auto tensor = files[file].find(item.key());
    if (tensor == files[file].end()) {
      return places.Refuse(item.key(), "that file has no such tensor");
    }
    result.insert(*tensor);
  }
  return result;
}

}  // namespace

absl::StatusOr<Safetensors> ReadSafetensors(const std::string& path) {
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  LORICA_ASSIGN_OR_RETURN(const Sections sections, Split(*file));
  LORICA_ASSIGN_OR_RETURN(
      const Json header,
      ParseJson(sections.header, absl::StrCat(path, " header")));
  Safetensors result;
  for (const auto& item : header.items()) {
    if (item.key() == kMetadataKey) {
      LORICA_ASSIGN_OR_RETURN(result.metadata,
                              ReadMetadata(item.value(), path));
      continue;
    }
    LORICA_ASSIGN_OR_RETURN(
        StoredTensor tensor,
        ReadEntry(item.key(), item.value(), sections.buffer, file));
    result.tensors.emplace(item.key(), std::move(tensor));
  }
  LORICA_RETURN_IF_ERROR(CheckCoverage(result.tensors, sections.buffer, path));
  return result;
}

absl::StatusOr<TensorTable> ReadSafetensorsDirectory(
    const std::string& directory) {
  const std::string whole = absl::StrCat(directory, "/model.safetensors");
  const std::string index =
      absl::StrCat(directory, "/model.safetensors.index.json");
  std::error_code error;
  if (!std::filesystem::exists(whole, error) &&
      std::filesystem::exists(index, error)) {
    return ReadIndexed(index, directory);
  }
  LORICA_ASSIGN_OR_RETURN(Safetensors file, ReadSafetensors(whole));
  return std::move(file.tensors);
}

}  // namespace lorica
