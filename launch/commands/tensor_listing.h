// Tables of the tensors that files hold.
#ifndef LORICA_LAUNCH_COMMANDS_TENSOR_LISTING_H_
#define LORICA_LAUNCH_COMMANDS_TENSOR_LISTING_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/files/stored_tensor.h"

namespace lorica {

// "layers.9" before "layers.10".
bool NaturallyBefore(absl::string_view a, absl::string_view b);

// One line a tensor in natural order (name, shape, type, bytes), a total for
// each type and one for all.
void PrintTensors(const TensorTable& tensors, std::ostream& out);

// Elements that are no numbers: infinite or NaN.
struct NotFinite {
  std::string tensor;
  int64_t elements = 0;
};

// Reads every element of the tensors that can be decoded and returns those
// that hold some that are no numbers. `read` receives the bytes gone through.
std::vector<NotFinite> FindNotFinite(const TensorTable& tensors, int64_t* read);

}  // namespace lorica

#endif  // LORICA_LAUNCH_COMMANDS_TENSOR_LISTING_H_
