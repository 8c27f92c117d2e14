// Writes a shard piece by piece.
#ifndef LORICA_LAUNCH_STATE_SHARD_WRITER_H_
#define LORICA_LAUNCH_STATE_SHARD_WRITER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "launch/state/manifest.h"

namespace lorica {

// Where a piece's elements are, row-major: anywhere in memory until the next
// call, or in `room`, which has as many.
using PieceSource = std::function<absl::StatusOr<const float*>(
    const Piece& piece, absl::Span<float> room)>;

// Writes directory/file and forces it to disk; returns its description with all
// checksums. No file where there are no pieces.
absl::StatusOr<Shard> WritePieces(const std::string& directory,
                                  const std::string& file,
                                  std::vector<Piece> pieces,
                                  const PieceSource& source);

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_SHARD_WRITER_H_
