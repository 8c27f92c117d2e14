// From element types known at run time to template parameters.
#ifndef LORICA_RUNTIME_CPU_DISPATCH_H_
#define LORICA_RUNTIME_CPU_DISPATCH_H_

#include "runtime/check.h"
#include "runtime/dtype.h"

namespace lorica::cpu {

// Calls body(T{}) with T float or BFloat16.
template <typename Body>
void DispatchFloat(DType dtype, const Body& body) {
  if (dtype == DType::kF32) {
    body(float{});
  } else {
    DCHECK(dtype == DType::kBF16) << dtype;
    body(BFloat16{});
  }
}

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_DISPATCH_H_
