// Errors that begin with the config field or the flag at fault.
#ifndef LORICA_LAUNCH_CONFIG_FIELD_ERROR_H_
#define LORICA_LAUNCH_CONFIG_FIELD_ERROR_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lorica {

// `result`, an error of which is about the value of `field`: "data.train" or
// "--data".
inline absl::Status Of(absl::string_view field, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(field, ": ", status.message()));
}

template <typename T>
absl::StatusOr<T> Of(absl::string_view field, absl::StatusOr<T> result) {
  if (result.ok()) return result;
  return Of(field, result.status());
}

}  // namespace lorica

#endif  // LORICA_LAUNCH_CONFIG_FIELD_ERROR_H_
