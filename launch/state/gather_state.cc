#include "launch/state/gather_state.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "launch/state/manifest.h"
#include "launch/state/saved_state.h"
#include "launch/state/shard_writer.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {

absl::Status GatherState(std::vector<std::string> saves,
                         const std::string& out) {
  const std::vector<std::string> places = saves;
  LORICA_ASSIGN_OR_RETURN(SavedState state, SavedState::Open(std::move(saves)));
  LORICA_RETURN_IF_ERROR(state.Verify());
  LORICA_ASSIGN_OR_RETURN(AtomicDirectory target, AtomicDirectory::Create(out));
  const std::string folder = absl::StrCat(target.partial(), "/", kStateFolder);
  std::error_code error;
  std::filesystem::create_directory(folder, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot create ", folder, ": ", error.message()));
  }
  Manifest manifest = state.manifest();
  std::vector<Piece> whole;
  for (const auto& [name, shape] : manifest.tensors) {
    whole.push_back({.tensor = name, .slice = {{0, shape[0]}, {0, shape[1]}}});
  }
  LORICA_ASSIGN_OR_RETURN(
      Shard shard,
      WritePieces(folder, ShardName(0, 1), std::move(whole),
                  [&](const Piece& piece,
                      absl::Span<float> room) -> absl::StatusOr<const float*> {
                    LORICA_RETURN_IF_ERROR(
                        state.Read(piece.tensor, piece.slice, room));
                    return room.data();
                  }));
  manifest.shards = {std::move(shard)};
  for (const FileBeside& beside : manifest.files) {
    for (const std::string& place : places) {
      const auto file = MappedFile::Open(absl::StrCat(place, "/", beside.file));
      if (!file.ok()) continue;
      LORICA_RETURN_IF_ERROR(WriteFileAtomically(
          absl::StrCat(target.partial(), "/", beside.file), (*file)->bytes()));
      break;
    }
  }
  LORICA_RETURN_IF_ERROR(
      WriteFileAtomically(ManifestPath(target.partial()), ToText(manifest)));
  return target.Commit();
}

}  // namespace lorica
