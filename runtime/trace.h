// Where a process spends its time: named spans, nested as the calls are.
//
// The trace belongs to the process, as a log does, so that any floor may mark
// a span without being handed a recorder. While none is taken a span costs one
// load and one branch.
#ifndef LORICA_RUNTIME_TRACE_H_
#define LORICA_RUNTIME_TRACE_H_

#include <cstdint>
#include <vector>

namespace lorica {

enum class SpanKind : uint8_t {
  kPhase,       // Of a run: a step, a micro-batch, a save, a validation.
  kLayer,       // Of the model: attention, MLP, head.
  kOp,          // An entry of the backend's table.
  kCollective,  // Of a group of ranks.
};
const char* NameOf(SpanKind kind);

// What a span had to do at least.
struct Work {
  double flops = 0;
  double bytes = 0;  // Read and written, or sent by a collective.
};

struct SpanRecord {
  const char* name;   // Of static storage.
  const char* about;  // Likewise: a direction, a purpose, or "".
  SpanKind kind;
  int thread;        // Counts the process's threads that marked spans.
  int64_t begin_ns;  // Since the trace began.
  int64_t end_ns;
  Work work;
};

// Begins a trace; a trace in progress is begun anew.
void StartTrace();
// Ends it. Spans in the order in which they ended; one that is still open is
// left out.
std::vector<SpanRecord> StopTrace();
bool Tracing();

// Marks its own lifetime. `name` and `about` have static storage.
class Span {
 public:
  Span(SpanKind kind, const char* name, const char* about = "",
       const Work& work = {});
  ~Span();
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  SpanRecord record_;
  int64_t epoch_;
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_TRACE_H_
