// What eval and generate share: a model, perhaps with an adapter, over all
// ranks as one tensor group.
#ifndef LORICA_LAUNCH_COMMANDS_INFERENCE_H_
#define LORICA_LAUNCH_COMMANDS_INFERENCE_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/base_model.h"
#include "launch/commands/command_line.h"
#include "launch/session.h"
#include "model/text/tokenizer.h"
#include "parallel/mpi_communicator.h"

namespace lorica {

struct Inference {
  std::unique_ptr<Session> session;
  BaseModel base;
  Tokenizer tokenizer;
  DType dtype;
  std::unique_ptr<Adapter> adapter;  // Null: the base model.
};

// --model, --adapter and --dtype.
std::vector<Flag> InferenceFlags();

// Checks and opens all the flags name, short of loading the weights. Agreed on
// by all ranks.
absl::StatusOr<Inference> OpenInference(const Arguments& arguments,
                                        const MpiEnvironment& mpi);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_INFERENCE_H_
