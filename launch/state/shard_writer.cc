#include "launch/state/shard_writer.h"

#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/check.h"
#include "runtime/files/checksum.h"
#include "runtime/files/mapped_file.h"
#include "runtime/files/safetensors.h"
#include "runtime/status_macros.h"

namespace lorica {

absl::StatusOr<Shard> WritePieces(const std::string& directory,
                                  const std::string& file,
                                  std::vector<Piece> pieces,
                                  const PieceSource& source) {
  Shard shard = {.file = file};
  if (pieces.empty()) return shard;
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, Piece> by_name;
  for (Piece& piece : pieces) {
    std::string name = piece.NameInShard();
    entries.push_back(
        {.name = name,
         .type = StoredType::kF32,
         .shape = {piece.slice.rows.size(), piece.slice.cols.size()}});
    by_name[std::move(name)] = std::move(piece);
  }
  const std::string path = absl::StrCat(directory, "/", file);
  LORICA_ASSIGN_OR_RETURN(
      SafetensorsWriter writer,
      SafetensorsWriter::Create(path, std::move(entries),
                                {{"format", "lorica-state"}}));
  std::vector<float> room;
  size_t element_bytes = 0;
  for (const SafetensorsEntry& entry : writer.entries()) {
    Piece& piece = by_name.at(entry.name);
    const auto count =
        static_cast<size_t>(piece.slice.rows.size() * piece.slice.cols.size());
    if (room.size() < count) room.resize(count);
    LORICA_ASSIGN_OR_RETURN(
        const float* elements,
        source(piece, absl::MakeSpan(room).subspan(0, count)));
    const absl::string_view bytes(reinterpret_cast<const char*>(elements),
                                  count * sizeof(float));
    piece.checksum = Checksum(bytes);
    LORICA_RETURN_IF_ERROR(writer.Append(bytes));
    element_bytes += bytes.size();
    shard.pieces.push_back(std::move(piece));
  }
  LORICA_RETURN_IF_ERROR(writer.Commit());
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> written,
                          MappedFile::Open(path));
  const absl::string_view bytes = written->bytes();
  CHECK_GT(bytes.size(), element_bytes);
  shard.bytes = static_cast<int64_t>(bytes.size());
  shard.header_checksum =
      Checksum(bytes.substr(0, bytes.size() - element_bytes));
  return shard;
}

}  // namespace lorica
