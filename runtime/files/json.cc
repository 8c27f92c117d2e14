#include "runtime/files/json.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// "file:line:column" of the last of the first `read` bytes of `text`.
std::string PlaceOf(absl::string_view text, absl::string_view file,
                    size_t read) {
  const absl::string_view before =
      text.substr(0, std::min(read == 0 ? 0 : read - 1, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  const size_t column = newline == absl::string_view::npos
                            ? before.size() + 1
                            : before.size() - newline;
  return absl::StrCat(file, ":", line, ":", column);
}

// What is wrong, without the library's name for it and its own words for the
// place. It quotes the file, at any length.
absl::string_view ReasonOf(const Json::parse_error& error) {
  constexpr size_t kReasonLimit = 200;
  const absl::string_view what = error.what();
  const size_t column = what.find(", column ");
  const size_t end =
      column == absl::string_view::npos ? column : what.find(": ", column);
  return what.substr(end == absl::string_view::npos ? 0 : end + 2,
                     kReasonLimit);
}

// The keys of the objects being parsed, innermost last.
class KeyWatch {
 public:
  void Observe(Json::parse_event_t event, const Json& parsed) {
    if (event == Json::parse_event_t::object_start) {
      open_.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open_.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!open_.back().insert(key).second && !repeated_) {
        repeated_ = key;
      }
    }
  }
  const std::optional<std::string>& repeated() const { return repeated_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::optional<std::string> repeated_;
};

// A value as an error shows it: short, and printable whatever it holds.
std::string Excerpt(const Json& value) {
  if (value.is_structured() && !value.empty()) {
    return value.is_array() ? absl::StrCat("a list of ", value.size())
                            : absl::StrCat("an object of ", value.size());
  }
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) {
    text = absl::StrCat(text.substr(0, 77), "...");
  }
  return text;
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view file) {
  KeyWatch keys;
  try {
    Json value =
        Json::parse(text.begin(), text.end(),
                    [&keys](int, Json::parse_event_t event, Json& parsed) {
                      keys.Observe(event, parsed);
                      return true;
                    });
    if (keys.repeated()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": the key ", Json(*keys.repeated()).dump(),
                       " is there twice"));
    }
    return value;
  } catch (const Json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(PlaceOf(text, file, error.byte),
                     ": not valid JSON: ", ReasonOf(error)));
  } catch (const Json::out_of_range& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": a number out of range: ", error.what()));
  }
}

absl::StatusOr<Json> ReadJsonFile(const std::string& path) {
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  return ParseJson(file->bytes(), path);
}

absl::StatusOr<JsonFields> JsonFields::Of(const Json& object,
                                          std::string place) {
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, " is ", Excerpt(object), "; an object is needed"));
  }
  return JsonFields(&object, std::move(place));
}

const Json* JsonFields::Find(absl::string_view name) const {
  const auto member = object_->find(std::string(name));
  return member == object_->end() || member->is_null() ? nullptr : &*member;
}

absl::Status JsonFields::Refuse(absl::string_view name,
                                absl::string_view reason) const {
  const Json* value = Find(name);
  return absl::InvalidArgumentError(
      absl::StrCat(place_, ": ", name, " is ",
                   value == nullptr ? "null" : Excerpt(*value), "; ", reason));
}

absl::Status JsonFields::Missing(absl::string_view name) const {
  return absl::InvalidArgumentError(
      absl::StrCat(place_, ": ", name, " is missing"));
}

absl::Status JsonFields::Read(absl::string_view name, bool* value) const {
  const Json* member = Find(name);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_boolean()) return Refuse(name, "true or false is needed");
  *value = member->get<bool>();
  return absl::OkStatus();
}

absl::Status JsonFields::Read(absl::string_view name, int64_t* value) const {
  const Json* member = Find(name);
  if (member == nullptr) return absl::OkStatus();
  const bool fits =
      member->is_number_integer() &&
      (!member->is_number_unsigned() ||
       member->get<uint64_t>() <=
           static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (!fits) return Refuse(name, "an integer is needed");
  *value = member->get<int64_t>();
  return absl::OkStatus();
}

absl::Status JsonFields::Read(absl::string_view name, double* value) const {
  const Json* member = Find(name);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_number()) return Refuse(name, "a number is needed");
  *value = member->get<double>();
  return absl::OkStatus();
}

absl::Status JsonFields::Read(absl::string_view name,
                              std::string* value) const {
  const Json* member = Find(name);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_string()) return Refuse(name, "a string is needed");
  *value = member->get<std::string>();
  return absl::OkStatus();
}

absl::Status JsonFields::Read(absl::string_view name,
                              std::vector<std::string>* value) const {
  const Json* member = Find(name);
  if (member == nullptr) return absl::OkStatus();
  const bool strings =
      member->is_array() &&
      std::all_of(member->begin(), member->end(),
                  [](const Json& item) { return item.is_string(); });
  if (!strings) return Refuse(name, "a list of strings is needed");
  *value = member->get<std::vector<std::string>>();
  return absl::OkStatus();
}

}  // namespace lorica
