// In the place of nccl_communicator.cc where lorica is built without NCCL.
#include "parallel/nccl_communicator.h"

namespace lorica {

OpenDeviceCollectives NcclCollectives(const NcclOptions&) { return nullptr; }

}  // namespace lorica
