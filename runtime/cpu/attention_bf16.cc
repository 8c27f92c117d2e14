#include "runtime/cpu/attention.h"

namespace lorica::cpu {

const TileKernels* Bf16TileKernels() { return F32TileKernels(); }

}  // namespace lorica::cpu
