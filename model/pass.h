// The tokens that one forward and backward run over, on the device.
#ifndef LORICA_MODEL_PASS_H_
#define LORICA_MODEL_PASS_H_

#include <cstdint>
#include <vector>

#include "model/token_batch.h"
#include "runtime/tensor.h"

namespace lorica {

struct Pass {
  int64_t tokens = 0;             // T
  Tensor ids;                     // [T] I32
  Tensor positions;               // [T] I32
  std::vector<Segment> segments;  // Records; attention stays inside one.

  // The rows that matter after the last attention, and their targets.
  Tensor selected;  // [C] I32 row numbers; absent: all T rows.
  Tensor targets;   // [C] I32; negative where there is no loss.
  std::vector<int32_t> host_targets;  // The same, on the host.

  // The dropout of this pass. Rows are numbered over the whole run, so that
  // masks do not depend on who computes a row. Absent in inference.
  Tensor row_index;           // [T] I64
  Tensor selected_row_index;  // [C] I64
  uint64_t seed = 0;

  // [1] F32, a factor of the gradient; absent: 1.
  Tensor grad_scale;

  bool trains() const { return row_index.present(); }
};

// Consecutive records of a batch that together have at most `max_tokens`
// tokens, or one longer record. Records of no target are left out: nothing
// would come of them.
struct RecordRange {
  int64_t begin = 0;  // Of batch.segments.
  int64_t end = 0;
};
std::vector<RecordRange> CutIntoPasses(const TokenBatch& batch,
                                       int64_t max_tokens);

// The rows of a pass that go on after the last attention. Sequence parallelism
// splits all rows alike and needs kAll.
enum class Selection : uint8_t { kTargets, kAll };

// T and C are rounded up to kRowMultiple, so that ragged batches meet few
// different shapes: the added tokens lengthen the last record, whose own tokens
// do not see them, and have no target.
inline constexpr int64_t kRowMultiple = 16;

// For Gpt::Evaluate. `place` receives, for each of the pass's C rows, the
// token's index in the batch, or -1 where there is no target.
Pass MakePass(Device* device, const TokenBatch& batch, RecordRange records,
              Selection selection, std::vector<int64_t>* place);

// What a pass for Gpt::Train is made of, on the host, with the mask numbers of
// dropout. Named as in Pass.
struct TrainingRows {
  std::vector<int32_t> ids;        // [T]
  std::vector<int32_t> positions;  // [T]
  std::vector<Segment> segments;
  std::vector<int32_t> selected;            // [C], or empty.
  std::vector<int32_t> targets;             // [C]
  std::vector<int64_t> row_index;           // [T]
  std::vector<int64_t> selected_row_index;  // [C]
  uint64_t seed = 0;
};
TrainingRows CollectTrainingRows(const TokenBatch& batch, RecordRange records,
                                 Selection selection, uint64_t seed);
Pass MakeTrainingPass(Device* device, const TrainingRows& rows);
inline Pass MakeTrainingPass(Device* device, const TokenBatch& batch,
                             RecordRange records, Selection selection,
                             uint64_t seed) {
  return MakeTrainingPass(device,
                          CollectTrainingRows(batch, records, selection, seed));
}
// Puts other rows in place of a training pass's, as many and as many selected.
void Replace(const TrainingRows& rows, Pass* pass);

}  // namespace lorica

#endif  // LORICA_MODEL_PASS_H_
