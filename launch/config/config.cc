#include "launch/config/config.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "configs/lorica.pb.h"
#include "launch/config/overrides.h"
#include "runtime/check.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Keeps the first error as "name:line:column: message", counting from 1 as
// editors do.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstError(absl::string_view name) : name_(name) {}

  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty()) {
      text_ =
          absl::StrCat(name_, ":", line + 1, ":", column + 1, ": ", message);
    }
  }
  void AddWarning(int, int, const std::string&) override {}

  const std::string& text() const { return text_; }

 private:
  std::string name_;
  std::string text_;
};

absl::Status ParseText(absl::string_view text, absl::string_view name,
                       proto::RunConfig* config) {
  FirstError error(name);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(std::string(text), config)) {
    return absl::InvalidArgumentError(error.text());
  }
  return absl::OkStatus();
}

bool LeftToInitFrom(const FieldDescriptor& field) {
  return field.containing_type() == proto::Adapter::descriptor() &&
         (field.name() == "rank" || field.name() == "alpha" ||
          field.name() == "rslora" || field.name() == "target");
}

// Writes the default into a scalar field that is not set.
void SetToDefault(const FieldDescriptor& field, Message* message) {
  const auto& reflection = *message->GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.SetInt32(message, &field, field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.SetInt64(message, &field, field.default_value_int64());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.SetDouble(message, &field,
                                  field.default_value_double());
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.SetBool(message, &field, field.default_value_bool());
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection.SetEnum(message, &field, field.default_value_enum());
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.SetString(message, &field,
                                  field.default_value_string());
    default:
      LOG(FATAL) << field.full_name() << " has a type without default";
  }
}

// Sets every field that is not, so that the message can be written out as what
// really ran.
void FillDefaults(bool fresh_adapter, Message* message) {
  const auto& descriptor = *message->GetDescriptor();
  const auto& reflection = *message->GetReflection();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    if (field->is_repeated()) continue;
    if (!fresh_adapter && LeftToInitFrom(*field)) continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      FillDefaults(fresh_adapter, reflection.MutableMessage(message, field));
    } else if (!reflection.HasField(*message, field)) {
      SetToDefault(*field, message);
    }
  }
}

// Defaults that are functions of other fields.
void Resolve(proto::RunConfig* config) {
  const bool fresh_adapter = config->adapter().init_from().empty();
  FillDefaults(fresh_adapter, config);
  if (fresh_adapter && config->adapter().target().empty()) {
    config->mutable_adapter()->add_target("q_proj");
    config->mutable_adapter()->add_target("v_proj");
  }
  const std::string& directory = config->checkpoint().directory();
  if (directory.empty()) return;  // Refused later.
  proto::Report* report = config->mutable_report();
  if (report->metrics().empty()) {
    report->set_metrics(absl::StrCat(directory, "/metrics.jsonl"));
  }
  if (report->tensorboard().empty()) report->set_tensorboard(directory);
}

// Every field that is set, by its path.
void ListFields(const Message& message, const std::string& prefix,
                std::map<std::string, std::string>* fields) {
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> present;
  reflection.ListFields(message, &present);
  for (const FieldDescriptor* field : present) {
    const std::string path = prefix + field->name();
    if (field->is_repeated()) {
      // Of the scalars, only texts are ever repeated.
      std::vector<std::string> values;
      for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
        values.push_back(reflection.GetRepeatedString(message, field, i));
      }
      (*fields)[path] = absl::StrJoin(values, " ");
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ListFields(reflection.GetMessage(message, field), path + ".", fields);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      (*fields)[path] = reflection.GetString(message, field);
    } else {
      google::protobuf::TextFormat::PrintFieldValueToString(message, field, -1,
                                                            &(*fields)[path]);
    }
  }
}

DType FromProto(proto::Model::DType dtype) {
  return dtype == proto::Model::F32 ? DType::kF32 : DType::kBF16;
}

LongRecords FromProto(proto::Data::Overlong overlong) {
  return overlong == proto::Data::REFUSE ? LongRecords::kRefuse
                                         : LongRecords::kCut;
}

Schedule FromProto(proto::Train::Schedule schedule) {
  return schedule == proto::Train::CONSTANT ? Schedule::kConstant
                                            : Schedule::kCosine;
}

OnAnomaly FromProto(proto::Train::Anomaly anomaly) {
  switch (anomaly) {
    case proto::Train::STOP:
      return OnAnomaly::kStop;
    case proto::Train::SKIP:
      return OnAnomaly::kSkip;
    case proto::Train::ROLL_BACK:
      return OnAnomaly::kRollBack;
  }
  LOG(FATAL) << "unknown reaction " << anomaly;
}

DeviceKind FromProto(proto::RunConfig::Device device) {
  switch (device) {
    case proto::RunConfig::AUTO:
      return DeviceKind::kAuto;
    case proto::RunConfig::CPU:
      return DeviceKind::kCpu;
    case proto::RunConfig::CUDA:
      return DeviceKind::kCuda;
  }
  LOG(FATAL) << "unknown device " << device;
}

Recompute FromProto(proto::RunConfig::Recompute recompute) {
  switch (recompute) {
    case proto::RunConfig::NONE:
      return Recompute::kNone;
    case proto::RunConfig::CHEAP:
      return Recompute::kCheap;
    case proto::RunConfig::BLOCK:
      return Recompute::kBlock;
  }
  LOG(FATAL) << "unknown recompute " << recompute;
}

AttentionKernels FromProto(proto::RunConfig::CudaAttention attention) {
  switch (attention) {
    case proto::RunConfig::CUDNN:
      return AttentionKernels::kCudnn;
    case proto::RunConfig::CUDNN_ANY_ORDER:
      return AttentionKernels::kCudnnAnyOrder;
    case proto::RunConfig::OWN:
      return AttentionKernels::kOwn;
  }
  LOG(FATAL) << "unknown attention " << attention;
}

AdapterOptions FromProto(const proto::Adapter& adapter) {
  AdapterOptions options;
  options.rank = std::nullopt;
  options.alpha = std::nullopt;
  options.rslora = std::nullopt;
  if (adapter.has_rank()) options.rank = adapter.rank();
  if (adapter.has_alpha()) options.alpha = adapter.alpha();
  if (adapter.has_rslora()) options.rslora = adapter.rslora();
  options.dropout = adapter.dropout();
  options.targets.assign(adapter.target().begin(), adapter.target().end());
  options.init_from = adapter.init_from();
  return options;
}

RunConfig FromProto(const proto::RunConfig& config) {
  const proto::Data& data = config.data();
  const proto::Train& train = config.train();
  return {
      .model = {.path = config.model().path(),
                .dtype = FromProto(config.model().dtype())},
      .adapter = FromProto(config.adapter()),
      .data = {.train = data.train(),
               .valid = data.valid(),
               .sequence_length = data.sequence_length(),
               .pack = data.pack(),
               .shuffle = data.shuffle(),
               .append_eos = data.append_eos(),
               .overlong = FromProto(data.overlong())},
      .train = {.steps = train.steps(),
                .global_batch = train.global_batch(),
                .micro_batch = train.micro_batch(),
                .learning_rate = train.learning_rate(),
                .warmup_steps = train.warmup_steps(),
                .schedule = FromProto(train.schedule()),
                .weight_decay = train.weight_decay(),
                .max_grad_norm = train.max_grad_norm(),
                .seed = train.seed(),
                .valid_every_steps = train.valid_every_steps(),
                .on_anomaly = FromProto(train.on_anomaly()),
                .outlier_factor = train.outlier_factor(),
                .max_anomalies = train.max_anomalies()},
      .mesh = {.data = config.mesh().data(),
               .tensor = config.mesh().tensor(),
               .tensor_sequence = config.mesh().tensor_sequence(),
               .timeout_seconds = config.mesh().timeout_seconds(),
               .deterministic = config.mesh().deterministic(),
               .gradient_bucket_bytes = config.mesh().gradient_bucket_bytes()},
      .checkpoint =
          {.directory = config.checkpoint().directory(),
           .every_steps = config.checkpoint().every_steps(),
           .keep = config.checkpoint().keep(),
           .keep_every_steps = config.checkpoint().keep_every_steps(),
           .resume = config.checkpoint().resume(),
           .allow_change = {config.checkpoint().allow_change().begin(),
                            config.checkpoint().allow_change().end()},
           .before_seconds = config.checkpoint().before_seconds()},
      .report = {.every_steps = config.report().every_steps(),
                 .metrics = config.report().metrics(),
                 .tensorboard = config.report().tensorboard(),
                 .trace = config.report().trace(),
                 .trace_first_step = config.report().trace_first_step(),
                 .trace_steps = config.report().trace_steps()},
      .device = FromProto(config.device()),
      .threads = config.threads(),
      .recompute = FromProto(config.recompute()),
      .product_choices = config.product_choices(),
      .pass_graphs = config.pass_graphs(),
      .cuda_attention = FromProto(config.cuda_attention()),
  };
}

}  // namespace

absl::StatusOr<LoadedConfig> ParseConfig(
    absl::string_view text, absl::string_view name,
    const std::vector<std::string>& overrides) {
  proto::RunConfig config;
  LORICA_RETURN_IF_ERROR(ParseText(text, name, &config));
  LORICA_RETURN_IF_ERROR(ApplyOverrides(overrides, &config));
  Resolve(&config);
  LoadedConfig loaded;
  loaded.run = FromProto(config);
  const absl::Status valid = loaded.run.Validate();
  if (!valid.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", valid.message()));
  }
  google::protobuf::TextFormat::PrintToString(config, &loaded.text);
  ListFields(config, "", &loaded.fields);
  return loaded;
}

absl::StatusOr<LoadedConfig> LoadConfig(
    const std::string& path, const std::vector<std::string>& overrides) {
  errno = 0;
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat(
        "cannot read the config ", path,
        errno == 0 ? " (it is empty)" : absl::StrCat(": ", strerror(errno))));
  }
  return ParseConfig(text.str(), path, overrides);
}

}  // namespace lorica
