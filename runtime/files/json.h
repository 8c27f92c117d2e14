// JSON of files that others wrote: errors are statuses that name the file.
#ifndef LORICA_RUNTIME_FILES_JSON_H_
#define LORICA_RUNTIME_FILES_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorica {

using Json = nlohmann::json;

// `text` must be one value in UTF-8 whose objects have no key twice. An error
// gives `file`, line and column.
absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view file);

absl::StatusOr<Json> ReadJsonFile(const std::string& path);

// The members of an object, read by type. `object` must outlive it; `place` is
// named in errors, as "model/config.json".
class JsonFields {
 public:
  static absl::StatusOr<JsonFields> Of(const Json& object, std::string place);

  const std::string& place() const { return place_; }
  // Whether the member is there and is not null.
  bool Has(absl::string_view name) const { return Find(name) != nullptr; }
  // The member, or null where Has is false.
  const Json* Find(absl::string_view name) const;

  // A member that is absent or null leaves `value` as it is; one of another
  // type is an error. A double may be written as an integer, not the reverse.
  absl::Status Read(absl::string_view name, bool* value) const;
  absl::Status Read(absl::string_view name, int64_t* value) const;
  absl::Status Read(absl::string_view name, double* value) const;
  absl::Status Read(absl::string_view name, std::string* value) const;
  absl::Status Read(absl::string_view name,
                    std::vector<std::string>* value) const;

  // As Read, but a member that is absent or null is an error.
  template <typename T>
  absl::Status Require(absl::string_view name, T* value) const {
    return Has(name) ? Read(name, value) : Missing(name);
  }

  // An error about a member, showing its value: "place: name is 3; reason".
  absl::Status Refuse(absl::string_view name, absl::string_view reason) const;

 private:
  JsonFields(const Json* object, std::string place)
      : object_(object), place_(std::move(place)) {}
  absl::Status Missing(absl::string_view name) const;

  const Json* object_;
  std::string place_;
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_FILES_JSON_H_
