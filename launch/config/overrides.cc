#include "launch/config/overrides.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cmath>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "runtime/check.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string FieldNames(const Descriptor& descriptor) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.field_count(); ++i) {
    names.push_back(descriptor.field(i)->name());
  }
  return absl::StrJoin(names, ", ");
}

std::string ValueNames(const EnumDescriptor& descriptor) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.value_count(); ++i) {
    names.push_back(descriptor.value(i)->name());
  }
  return absl::StrJoin(names, ", ");
}

// The field a path ends at and the message that holds it.
struct Place {
  Message* message;
  const FieldDescriptor* field;
};

absl::StatusOr<Place> Find(absl::string_view path, Message* message) {
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  for (size_t i = 0; i < names.size(); ++i) {
    const Descriptor& descriptor = *message->GetDescriptor();
    const FieldDescriptor* field = descriptor.FindFieldByName(names[i]);
    const std::string parent =
        absl::StrJoin(names.begin(), names.begin() + i, ".");
    if (field == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          parent.empty() ? "the config" : parent, " has no field \"", names[i],
          "\"; it has ", FieldNames(descriptor)));
    }
    const bool nested = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool last = i + 1 == names.size();
    if (nested && last) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, " is a group of fields: ", FieldNames(*field->message_type())));
    }
    if (!nested && !last) {
      return absl::InvalidArgumentError(
          absl::StrCat(absl::StrJoin(names.begin(), names.begin() + i + 1, "."),
                       " is a single value, not a group of fields"));
    }
    if (last) return Place{message, field};
    message = message->GetReflection()->MutableMessage(message, field);
  }
  return absl::InvalidArgumentError("the path is empty");
}

absl::Status Expected(absl::string_view what, absl::string_view value) {
  return absl::InvalidArgumentError(
      absl::StrCat("expected ", what, ", not \"", value, "\""));
}

absl::Status Assign(const Place& place, const std::string& value) {
  const Reflection& reflection = *place.message->GetReflection();
  Message* message = place.message;
  const FieldDescriptor* field = place.field;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t number;
      if (!absl::SimpleAtoi(value, &number)) {
        return Expected("a whole number", value);
      }
      reflection.SetInt32(message, field, number);
      break;
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t number;
      if (!absl::SimpleAtoi(value, &number)) {
        return Expected("a whole number", value);
      }
      reflection.SetInt64(message, field, number);
      break;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double number;
      if (!absl::SimpleAtod(value, &number) || !std::isfinite(number)) {
        return Expected("a number", value);
      }
      reflection.SetDouble(message, field, number);
      break;
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      bool flag;
      if (!absl::SimpleAtob(value, &flag)) {
        return Expected("true or false", value);
      }
      reflection.SetBool(message, field, flag);
      break;
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto* number = field->enum_type()->FindValueByName(value);
      if (number == nullptr) {
        return Expected(
            absl::StrCat("one of ", ValueNames(*field->enum_type())), value);
      }
      reflection.SetEnum(message, field, number);
      break;
    }
    case FieldDescriptor::CPPTYPE_STRING:
      if (field->is_repeated()) {
        reflection.AddString(message, field, value);
      } else {
        reflection.SetString(message, field, value);
      }
      break;
    default:
      LOG(FATAL) << field->full_name() << " has a type --set does not know";
  }
  return absl::OkStatus();
}

absl::Status Apply(const std::string& text, std::set<std::string>* lists,
                   Message* message) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    return absl::InvalidArgumentError(
        "expected path=value, such as train.steps=10");
  }
  const std::string path = text.substr(0, equals);
  LORICA_ASSIGN_OR_RETURN(const Place place, Find(path, message));
  if (place.field->is_repeated() && lists->insert(path).second) {
    place.message->GetReflection()->ClearField(place.message, place.field);
  }
  return Assign(place, text.substr(equals + 1));
}

}  // namespace

absl::Status ApplyOverrides(const std::vector<std::string>& overrides,
                            Message* message) {
  std::set<std::string> lists;  // Paths of the lists begun anew.
  for (const std::string& text : overrides) {
    const absl::Status status = Apply(text, &lists, message);
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--set ", text, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace lorica
