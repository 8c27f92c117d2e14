// CHECK, DCHECK, LOG and VLOG for the whole program. The only file that names
// the logging library.
#ifndef LORICA_RUNTIME_CHECK_H_
#define LORICA_RUNTIME_CHECK_H_

#include <glog/logging.h>

#endif  // LORICA_RUNTIME_CHECK_H_
