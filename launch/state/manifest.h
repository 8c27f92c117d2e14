// What a save's state directory holds, and the file that says so.
#ifndef LORICA_LAUNCH_STATE_MANIFEST_H_
#define LORICA_LAUNCH_STATE_MANIFEST_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "launch/train/position.h"
#include "parallel/mesh.h"
#include "parallel/shard_spec.h"
#include "runtime/files/json.h"

namespace lorica {

// An index range of a logical tensor, as a shard holds it: F32, row-major,
// dense. Logical tensors are matrices named after what they are for,
// "model.layers.0.self_attn.q_proj.lora_a.value", whatever the mesh.
struct Piece {
  std::string tensor;
  Slice slice;
  std::string checksum;  // Of its elements' bytes.

  // Its name in the shard: "NAME[0:8,16:32]", rows before columns.
  std::string NameInShard() const;
};

// A safetensors file of pieces.
struct Shard {
  std::string file;  // Beside the manifest: "shard-0-of-2.safetensors".
  int64_t bytes = 0;
  std::string header_checksum;  // Of all that precedes the first element.
  std::vector<Piece> pieces;
};

// A file of the save beside the state: "adapter_model.safetensors".
struct FileBeside {
  std::string file;
  int64_t bytes = 0;
  std::string checksum;
};

struct Manifest {
  TrainingPosition position;
  MeshConfig mesh;  // That wrote it; any may read it.
  // The resolved config, "train.seed" -> "1", and the checksum of the training
  // records.
  std::map<std::string, std::string> config;
  std::string data_checksum;
  std::map<std::string, Shape> tensors;  // Logical: name, whole shape.
  std::vector<Shard> shards;
  std::vector<FileBeside> files;
};

// "state/manifest.json" and "state" of a save; the shard of tensor rank `rank`
// of `ranks`.
inline constexpr char kStateFolder[] = "state";
std::string ManifestPath(const std::string& save);
std::string ShardName(int rank, int ranks);

// JSON that begins with the checksum of all that follows it, so that no byte of
// it can change unseen.
std::string ToText(const Manifest& manifest);

// Error (DataLoss): text that was cut or changed. Error (InvalidArgument):
// another format or version; pieces that overlap, leave a hole or lie outside
// of their tensor. `path` is named in both.
absl::StatusOr<Manifest> ParseManifest(absl::string_view text,
                                       const std::string& path);

// A shard's entry by itself, as ranks tell each other of theirs.
Json ToJson(const Shard& shard);
absl::StatusOr<Shard> ShardFromText(absl::string_view text);

}  // namespace lorica

#endif  // LORICA_LAUNCH_STATE_MANIFEST_H_
