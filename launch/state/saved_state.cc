#include "launch/state/saved_state.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/check.h"
#include "runtime/files/checksum.h"
#include "runtime/files/mapped_file.h"
#include "runtime/files/safetensors.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::Status Damaged(const std::string& path, absl::string_view how) {
  return absl::DataLossError(absl::StrCat(path, ": damaged: ", how));
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  return std::string(file->bytes());
}

Range Intersect(const Range& a, const Range& b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// Whether the header lists the shard's pieces and nothing else.
absl::Status CheckTable(const std::string& path, const TensorTable& table,
                        const Shard& shard) {
  for (const Piece& piece : shard.pieces) {
    const auto found = table.find(piece.NameInShard());
    if (found == table.end()) {
      return Damaged(path, absl::StrCat(piece.NameInShard(), " is missing"));
    }
    const std::vector<int64_t> shape = {piece.slice.rows.size(),
                                        piece.slice.cols.size()};
    const StoredTensor& stored = found->second;
    if (stored.type != StoredType::kF32 || stored.shape != shape) {
      return Damaged(
          path, absl::StrCat(piece.NameInShard(), " is ", NameOf(stored.type),
                             " ", ShapeToString(stored.shape), ", not F32 ",
                             ShapeToString(shape)));
    }
  }
  if (table.size() == shard.pieces.size()) return absl::OkStatus();
  return Damaged(path, absl::StrCat("it holds ", table.size(), " tensors, not ",
                                    shard.pieces.size()));
}

}  // namespace

absl::StatusOr<SavedState> SavedState::Open(std::vector<std::string> saves) {
  CHECK(!saves.empty());
  const std::string path = ManifestPath(saves.front());
  LORICA_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  LORICA_ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(text, path));
  for (const std::string& save : saves) {
    std::error_code error;
    const std::string other = ManifestPath(save);
    if (!std::filesystem::exists(other, error)) continue;
    LORICA_ASSIGN_OR_RETURN(const std::string other_text, ReadText(other));
    LORICA_ASSIGN_OR_RETURN(const Manifest same,
                            ParseManifest(other_text, other));
    const auto sums = [](const Manifest& m) {
      return absl::StrJoin(m.shards, " ", [](std::string* out, const Shard& s) {
        absl::StrAppend(out, s.file, ToJson(s).dump());
      });
    };
    if (sums(same) != sums(manifest)) {
      return absl::InvalidArgumentError(absl::StrCat(
          save, " and ", saves.front(), " are not parts of one save"));
    }
  }
  return SavedState(std::move(saves), std::move(manifest));
}

absl::StatusOr<std::string> SavedState::Find(const std::string& file) const {
  for (const std::string& save : saves_) {
    std::string path = absl::StrCat(save, "/", file);
    std::error_code error;
    if (std::filesystem::exists(path, error)) return path;
  }
  return absl::NotFoundError(absl::StrCat(
      file, " of the save is not in ", absl::StrJoin(saves_, " or "),
      "; copy it there from the host that wrote it"));
}

absl::StatusOr<const TensorTable*> SavedState::OpenShard(const Shard& shard) {
  const auto open = open_.find(shard.file);
  if (open != open_.end()) return &open->second;
  LORICA_ASSIGN_OR_RETURN(const std::string path,
                          Find(absl::StrCat(kStateFolder, "/", shard.file)));
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  const absl::string_view bytes = file->bytes();
  if (static_cast<int64_t>(bytes.size()) != shard.bytes) {
    return Damaged(path, absl::StrCat("it has ", bytes.size(), " bytes, not ",
                                      shard.bytes));
  }
  int64_t element_bytes = 0;
  for (const Piece& piece : shard.pieces) {
    element_bytes += piece.slice.rows.size() * piece.slice.cols.size() *
                     static_cast<int64_t>(sizeof(float));
  }
  const int64_t header = shard.bytes - element_bytes;
  if (header <= 0 || Checksum(bytes.substr(0, static_cast<size_t>(header))) !=
                         shard.header_checksum) {
    return Damaged(path, "the checksum of its header is wrong");
  }
  absl::StatusOr<Safetensors> content = ReadSafetensors(path);
  if (!content.ok()) return Damaged(path, content.status().message());
  LORICA_RETURN_IF_ERROR(CheckTable(path, content->tensors, shard));
  return &(open_[shard.file] = std::move(content->tensors));
}

absl::StatusOr<const float*> SavedState::OpenPiece(const Shard& shard,
                                                   const Piece& piece) {
  const std::string name = piece.NameInShard();
  absl::StatusOr<const TensorTable*> table = OpenShard(shard);
  if (!table.ok()) {
    return absl::Status(
        table.status().code(),
        absl::StrCat(table.status().message(), " (needed for ", name, ")"));
  }
  const StoredTensor& stored = (*table)->at(name);
  if (verified_.count(name) == 0) {
    if (Checksum(stored.bytes) != piece.checksum) {
      return Damaged(stored.file->path(),
                     absl::StrCat("the checksum of ", name, " is wrong"));
    }
    verified_.insert(name);
  }
  return reinterpret_cast<const float*>(stored.bytes.data());
}

absl::Status SavedState::Read(const std::string& tensor, const Slice& slice,
                              absl::Span<float> out) {
  CHECK_EQ(std::ssize(out), slice.rows.size() * slice.cols.size());
  for (const Shard& shard : manifest_.shards) {
    for (const Piece& piece : shard.pieces) {
      if (piece.tensor != tensor) continue;
      const Range rows = Intersect(piece.slice.rows, slice.rows);
      const Range cols = Intersect(piece.slice.cols, slice.cols);
      if (rows.size() == 0 || cols.size() == 0) continue;
      LORICA_ASSIGN_OR_RETURN(const float* elements, OpenPiece(shard, piece));
      for (int64_t r = rows.begin; r < rows.end; ++r) {
        const float* from =
            elements + (r - piece.slice.rows.begin) * piece.slice.cols.size() +
            cols.begin - piece.slice.cols.begin;
        float* to = out.data() + (r - slice.rows.begin) * slice.cols.size() +
                    cols.begin - slice.cols.begin;
        std::memcpy(to, from, static_cast<size_t>(cols.size()) * sizeof(float));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status SavedState::Verify() {
  for (const Shard& shard : manifest_.shards) {
    for (const Piece& piece : shard.pieces) {
      LORICA_RETURN_IF_ERROR(OpenPiece(shard, piece).status());
    }
  }
  for (const FileBeside& beside : manifest_.files) {
    LORICA_ASSIGN_OR_RETURN(const std::string path, Find(beside.file));
    LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                            MappedFile::Open(path));
    if (static_cast<int64_t>(file->bytes().size()) != beside.bytes ||
        Checksum(file->bytes()) != beside.checksum) {
      return Damaged(path, "its checksum is wrong");
    }
  }
  return absl::OkStatus();
}

}  // namespace lorica
