// Early return on an absl::Status that is not OK.
#ifndef LORICA_RUNTIME_STATUS_MACROS_H_
#define LORICA_RUNTIME_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define LORICA_RETURN_IF_ERROR(expression)      \
  do {                                          \
    absl::Status lorica_status_ = (expression); \
    if (!lorica_status_.ok()) {                 \
      return lorica_status_;                    \
    }                                           \
  } while (false)

#define LORICA_STATUS_CONCAT_INNER_(x, y) x##y
#define LORICA_STATUS_CONCAT_(x, y) LORICA_STATUS_CONCAT_INNER_(x, y)

// `target` may be a declaration: LORICA_ASSIGN_OR_RETURN(File f, Open(path));
#define LORICA_ASSIGN_OR_RETURN(target, expression)                    \
  auto LORICA_STATUS_CONCAT_(lorica_result_, __LINE__) = (expression); \
  if (!LORICA_STATUS_CONCAT_(lorica_result_, __LINE__).ok()) {         \
    return LORICA_STATUS_CONCAT_(lorica_result_, __LINE__).status();   \
  }                                                                    \
  target = *std::move(LORICA_STATUS_CONCAT_(lorica_result_, __LINE__))

#endif  // LORICA_RUNTIME_STATUS_MACROS_H_
