// A backend that calls another and marks a span around each entry.
#ifndef LORICA_RUNTIME_TRACED_BACKEND_H_
#define LORICA_RUNTIME_TRACED_BACKEND_H_

#include "runtime/backend.h"

namespace lorica {

// The table that traces `inner`, which must outlive its use. A process traces
// one kind of device: the table of a later call replaces that of an earlier.
// While a trace is taken each entry waits until its work is done, so that a
// span is the work's own time; otherwise the inner table's entry is called and
// nothing else happens.
const Backend* TracedBackend(const Backend* inner);

}  // namespace lorica

#endif  // LORICA_RUNTIME_TRACED_BACKEND_H_
