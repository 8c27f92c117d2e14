// What `lorica export --format merged` says of its result.
#ifndef LORICA_LAUNCH_EXPORT_MERGE_REPORT_H_
#define LORICA_LAUNCH_EXPORT_MERGE_REPORT_H_

#include <ostream>

#include "launch/export/probe.h"
#include "model/export/merged_weights.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// A line a tensor in natural order (name, shape, whether it was merged, largest
// and RMS error of its elements), then totals. `seconds`: what writing took.
void PrintMergedFiles(const MergedFiles& files, StoredType type, double seconds,
                      std::ostream& out);

// One line; `from` is what the logits are compared with.
void PrintLogits(const LogitDifference& logits, const char* from,
                 std::ostream& out);

}  // namespace lorica

#endif  // LORICA_LAUNCH_EXPORT_MERGE_REPORT_H_
