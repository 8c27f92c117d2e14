// `lorica export --format merged`: a model with adapters folded in or out.
#ifndef LORICA_LAUNCH_EXPORT_MERGED_MODEL_H_
#define LORICA_LAUNCH_EXPORT_MERGED_MODEL_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "model/peft_adapter.h"
#include "parallel/mpi_communicator.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

struct MergeJob {
  std::string model;
  PeftAdapter adapter;    // The change to make.
  std::string directory;  // Names the adapter in errors.
  // What the result should be, if known: this model with `expected_adapter`
  // (no modules: none). Empty: nothing to compare with.
  std::string expected_model;
  PeftAdapter expected_adapter;
  std::string out;  // Does not exist.
  StoredType type = StoredType::kF32;
  // The length of the probe; 0: none, and no rank loads a model.
  int64_t probe_tokens = 32;
};

// Rank 0 writes the directory and the report, on `report`; all ranks compute
// the probe, before and after. The directory appears when all is done, and is
// proved by loading it. The same verdict on all ranks.
absl::Status ExportMerged(const MergeJob& job, const MpiEnvironment& mpi,
                          std::ostream& report);

}  // namespace lorica

#endif  // LORICA_LAUNCH_EXPORT_MERGED_MODEL_H_
