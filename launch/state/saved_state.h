// A save as it lies on disk: its tensors by logical name and index range,
// whatever mesh wrote them.
#ifndef LORICA_LAUNCH_STATE_SAVED_STATE_H_
#define LORICA_LAUNCH_STATE_SAVED_STATE_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "launch/state/manifest.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// Opened shards stay mapped. For one thread.
class SavedState {
 public:
  // `saves`: step directories; several where the shards of one save lie in
  // several places, as on the disks of several hosts. The first has the
  // manifest that counts. Reads nothing but manifests. Errors: NotFound, there
  // is no manifest; DataLoss, it is damaged; InvalidArgument, the directories
  // are of different saves.
  static absl::StatusOr<SavedState> Open(std::vector<std::string> saves);

  const Manifest& manifest() const { return manifest_; }
  // The first directory.
  const std::string& path() const { return saves_.front(); }

  // Fills `out` with the elements of `slice` of a tensor, row-major. Opens only
  // the shards that hold some of them, and verifies every piece it takes
  // elements from. Errors: NotFound, a shard is in none of the directories;
  // DataLoss, a shard is not what the manifest says; both name file and tensor.
  absl::Status Read(const std::string& tensor, const Slice& slice,
                    absl::Span<float> out);

  // Reads every byte of every file of the save. Errors: as Read's, and of the
  // files beside the state.
  absl::Status Verify();

 private:
  SavedState(std::vector<std::string> saves, Manifest manifest)
      : saves_(std::move(saves)), manifest_(std::move(manifest)) {}

  // The tensors of a shard, its header verified.
  absl::StatusOr<const TensorTable*> OpenShard(const Shard& shard);
  // The elements of a piece, verified.
  absl::StatusOr<const float*> OpenPiece(const Shard& shard,
                                         const Piece& piece);
  // Where a file of the save is. NotFound: nowhere.
  absl::StatusOr<std::string> Find(const std::string& file) const;

  std::vector<std::string> saves_;
  Manifest manifest_;
  std::map<std::string, TensorTable> open_;  // By the shard's file.
  std::set<std::string> verified_;           // By the piece's name.
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_SAVED_STATE_H_
