// Proof that ranks which should hold the same values do.
#ifndef LORICA_PARALLEL_REPLICAS_H_
#define LORICA_PARALLEL_REPLICAS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "parallel/communicator.h"
#include "runtime/tensor.h"

namespace lorica {

// Internal, on every rank of the group, unless the dense tensors are the same
// on all of them, byte for byte; names `what` and the ranks that differ from
// the majority. One exchange of 16 bytes a rank.
absl::Status VerifyReplicas(absl::string_view what,
                            absl::Span<const Tensor> tensors,
                            Communicator& group);

}  // namespace lorica

#endif  // LORICA_PARALLEL_REPLICAS_H_
