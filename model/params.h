// The parameter table: every array of a model and of its adapter, with the
// slice each tensor rank holds. Loading, initialization, synchronization,
// saving and counting are loops over it.
#ifndef LORICA_MODEL_PARAMS_H_
#define LORICA_MODEL_PARAMS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/gpt_config.h"
#include "parallel/shard_spec.h"
#include "runtime/shape.h"

namespace lorica {

// Which features each tensor rank holds.
struct ModelSplit {
  Split heads;      // Rows of q, columns of o.
  Split kv_heads;   // Rows of k and v; ranks may share a head.
  Split mlp;        // Rows of gate and up, columns of down.
  Split vocab;      // Rows of the embedding and of the head.
  Split positions;  // Rows of learned positions.
  int ranks() const { return static_cast<int>(heads.size()); }
};

// Whole groups of one key/value head and its query heads go to a rank while
// there are enough of them; beyond that ranks share a key/value head and split
// its query heads. Error: more ranks than query heads, or than any other
// dimension has units.
absl::StatusOr<ModelSplit> SplitModel(const GptConfig& config, int ranks);

enum class Storage : uint8_t { kCompute, kF32 };

// How Hugging Face's files hold a matrix: as it is, or its transpose.
enum class FileOrder : uint8_t { kAsIs, kTransposed };

struct ParamSpec {
  std::string name;  // Hugging Face's.
  Shape shape;       // Of the whole array.
  ShardSpec shard;
  Storage storage = Storage::kCompute;  // Norm weights stay F32.
  FileOrder file_order = FileOrder::kAsIs;
};

// The linear layers of one block, those that share an input behind each other:
// q, k and v; gate and up. A family with one layer in their place has the first
// kind of them alone.
enum LinearKind : int { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kNumLinears = 7;

// A frozen linear layer that an adapter may sit on, W [out, in].
struct LinearSpec {
  std::string module;  // "model.layers.3.self_attn.q_proj"
  LinearKind kind;
  int64_t layer = 0;
  Shape shape;
  ShardSpec shard;  // Of the first section.
  // Equal sections of the rows that are split alike, each by itself: q, k and v
  // of one layer. A rank's rows are its slices of them, one behind the other.
  int sections = 1;
  bool biased = false;  // Then a frozen bias [out] goes with its rows.
  FileOrder file_order = FileOrder::kAsIs;
};

// The split of one section: `spec`, which is a linear's or that of one of its
// factors, with its ranges moved down by `section` times `rows`.
ShardSpec SectionOf(const ShardSpec& spec, int section, int64_t rows);

// In the order of their kinds.
std::vector<LinearSpec> LinearsOfLayer(const GptConfig& config,
                                       const ModelSplit& split, int64_t layer);

std::string EmbeddingName(const GptConfig& config);

// Every frozen parameter, in the order of the forward pass; a bias follows its
// weight. The sections of an array follow each other under one name.
std::vector<ParamSpec> FrozenParams(const GptConfig& config,
                                    const ModelSplit& split);

}  // namespace lorica

#endif  // LORICA_MODEL_PARAMS_H_
