#include "launch/config/config.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "configs/lorica.pb.h"
#include "gmock/gmock.h"

namespace lorica {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr char kLeast[] = R"(
  model { path: "m.gguf" }
  data { train: "t.jsonl" }
  checkpoint { directory: "runs/x" }
)";

std::string ErrorOf(absl::string_view text,
                    const std::vector<std::string>& overrides = {}) {
  const auto loaded = ParseConfig(text, "run.textproto", overrides);
  return loaded.ok() ? "no error" : std::string(loaded.status().message());
}

RunConfig Load(absl::string_view text,
               const std::vector<std::string>& overrides = {}) {
  const auto loaded = ParseConfig(text, "run.textproto", overrides);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? loaded->run : RunConfig{};
}

TEST(ConfigTest, DefaultsOfTheProtoAreThoseOfTheStructs) {
  RunConfig expected;
  expected.model.path = "m.gguf";
  expected.data.train = "t.jsonl";
  expected.checkpoint.directory = "runs/x";
  expected.report.metrics = "runs/x/metrics.jsonl";
  expected.report.tensorboard = "runs/x";
  EXPECT_EQ(Load(kLeast), expected);
}

// A value that a field has neither by default nor in `base` below.
std::string OtherValue(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(field.default_value_int32() * 2 + 1);
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(field.default_value_int64() * 2 + 1);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(field.default_value_double() / 2 + 0.25);
    case FieldDescriptor::CPPTYPE_BOOL:
      return field.default_value_bool() ? "false" : "true";
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int next = (field.default_value_enum()->index() + 1) %
                       field.enum_type()->value_count();
      return field.enum_type()->value(next)->name();
    }
    default:
      return "other";
  }
}

void ForEachField(const Descriptor& descriptor, const std::string& prefix,
                  const std::function<void(const std::string&,
                                           const FieldDescriptor&)>& visit) {
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string path = prefix + field.name();
    if (field.message_type() != nullptr) {
      ForEachField(*field.message_type(), path + ".", visit);
    } else {
      visit(path, field);
    }
  }
}

TEST(ConfigTest, EveryFieldReachesTheStructs) {
  // Batches that every other value of micro_batch and mesh.data divides.
  const std::vector<std::string> base = {"data.valid=v.jsonl",
                                         "train.global_batch=1080"};
  const RunConfig before = Load(kLeast, base);
  int fields = 0;
  ForEachField(*proto::RunConfig::descriptor(), "",
               [&](const std::string& path, const FieldDescriptor& field) {
                 std::vector<std::string> overrides = base;
                 const std::string value = path == "train.global_batch" ? "2160"
                                           : path == "train.outlier_factor"
                                               ? "3"
                                               : OtherValue(field);
                 overrides.push_back(absl::StrCat(path, "=", value));
                 const auto after =
                     ParseConfig(kLeast, "run.textproto", overrides);
                 ASSERT_TRUE(after.ok()) << after.status();
                 EXPECT_NE(after->run, before) << overrides.back();
                 EXPECT_EQ(after->fields.count(path), 1u) << path;
                 const auto again = ParseConfig(after->text, "again", {});
                 ASSERT_TRUE(again.ok()) << again.status();
                 EXPECT_EQ(again->run, after->run) << overrides.back();
                 EXPECT_EQ(again->text, after->text) << overrides.back();
                 ++fields;
               });
  EXPECT_GT(fields, 30);
}

TEST(ConfigTest, FieldsAreListedByPath) {
  const auto loaded =
      ParseConfig(kLeast, "run.textproto",
                  {"adapter.target=q_proj", "adapter.target=o_proj",
                   "train.learning_rate=3e-4", "train.schedule=CONSTANT"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->fields.at("adapter.target"), "q_proj o_proj");
  EXPECT_EQ(loaded->fields.at("train.learning_rate"), "0.0003");
  EXPECT_EQ(loaded->fields.at("train.schedule"), "CONSTANT");
  EXPECT_EQ(loaded->fields.at("train.seed"), "1");
  EXPECT_EQ(loaded->fields.at("data.pack"), "true");
}

TEST(ConfigTest, InitFromDecidesWhatTheConfigDoesNotSay) {
  const RunConfig run =
      Load(kLeast, {"adapter.init_from=dir", "adapter.alpha=4"});
  EXPECT_EQ(run.adapter.rank, std::nullopt);
  EXPECT_EQ(run.adapter.alpha, 4);
  EXPECT_EQ(run.adapter.rslora, std::nullopt);
  EXPECT_TRUE(run.adapter.targets.empty());
}

TEST(ConfigTest, OverridesOfAListReplaceTheListOfTheFile) {
  const std::string text =
      absl::StrCat(kLeast, "adapter { target: \"up_proj\" }");
  EXPECT_THAT(Load(text).adapter.targets, ElementsAre("up_proj"));
  EXPECT_THAT(Load(text, {"adapter.target=q_proj", "adapter.target=o_proj"})
                  .adapter.targets,
              ElementsAre("q_proj", "o_proj"));
}

TEST(ConfigTest, AnUnknownFieldIsNamedWithLineAndColumn) {
  const std::string error = ErrorOf("model { path: \"m\" }\ntrain { stps: 3 }");
  EXPECT_THAT(error, StartsWith("run.textproto:2:"));
  EXPECT_THAT(error, HasSubstr("stps"));
}

TEST(ConfigTest, BrokenTextIsNamedWithLineAndColumn) {
  for (const char* text :
       {"model {\n  path: \"m\"\n", "\n\n\nmodel {]\n}", "train {\n steps: x }",
        "model {\n dtype: INT3 }", "train {\n steps: 1 steps: 2 }",
        "train {\n steps: 99999999999999999999 }", "model {\n path: \"a\n }"}) {
    EXPECT_THAT(ErrorOf(text),
                testing::ContainsRegex("^run.textproto:[2-4]:[0-9]+: .+"));
  }
}

TEST(ConfigTest, AMissingFileIsNamed) {
  const auto loaded = LoadConfig("/nonexistent/run.textproto", {});
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().message(),
            "cannot read the config /nonexistent/run.textproto: "
            "No such file or directory");
}

TEST(ConfigTest, AFolderInPlaceOfAFileIsNamed) {
  const auto loaded = LoadConfig(testing::TempDir(), {});
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(std::string(loaded.status().message()),
              testing::EndsWith("Is a directory"));
}

TEST(ConfigTest, AnEmptyConfigSaysWhatToGive) {
  EXPECT_EQ(ErrorOf(""),
            "run.textproto: model.path is not given; set it, for example to "
            "\"models/SmolLM2-135M-Instruct.gguf\"");
}

struct BadValue {
  const char* override;
  const char* message;
};
std::ostream& operator<<(std::ostream& out, const BadValue& bad) {
  return out << bad.override;
}

class BadValueTest : public testing::TestWithParam<BadValue> {};

TEST_P(BadValueTest, IsNamedWithWhatToChange) {
  EXPECT_EQ(ErrorOf(kLeast, {GetParam().override}), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Validation, BadValueTest,
    testing::Values(
        BadValue{"data.train=",
                 "run.textproto: data.train is not given; set it, for example "
                 "to \"configs/data/train.jsonl\""},
        BadValue{"checkpoint.directory=",
                 "run.textproto: checkpoint.directory is not given; set it, "
                 "for example to \"runs/demo\""},
        BadValue{"adapter.rank=0",
                 "run.textproto: adapter.rank is 0; it must be at least 1"},
        BadValue{"adapter.alpha=-1",
                 "run.textproto: adapter.alpha is -1; it must be above zero"},
        BadValue{"adapter.dropout=1",
                 "run.textproto: adapter.dropout is 1; it must be at least 0 "
                 "and below 1"},
        BadValue{"adapter.target=",
                 "run.textproto: adapter.target is an empty name; use names "
                 "such as \"q_proj\""},
        BadValue{"data.sequence_length=1",
                 "run.textproto: data.sequence_length is 1; it must be at "
                 "least 2"},
        BadValue{"train.steps=0",
                 "run.textproto: train.steps is 0; it must be at least 1"},
        BadValue{"train.global_batch=0",
                 "run.textproto: train.global_batch is 0; it must be at least "
                 "1"},
        BadValue{"train.global_batch=6",
                 "run.textproto: train.global_batch is 6 rows; it must be a "
                 "multiple of train.micro_batch * mesh.data = 4 * 1 = 4"},
        BadValue{"mesh.data=3",
                 "run.textproto: train.global_batch is 16 rows; it must be a "
                 "multiple of train.micro_batch * mesh.data = 4 * 3 = 12"},
        BadValue{"train.micro_batch=-2",
                 "run.textproto: train.micro_batch is -2; it must be at least "
                 "1"},
        BadValue{"train.learning_rate=0",
                 "run.textproto: train.learning_rate is 0; it must be above "
                 "zero"},
        BadValue{"train.warmup_steps=-1",
                 "run.textproto: train.warmup_steps is -1; it must be at least "
                 "0"},
        BadValue{"train.weight_decay=-0.5",
                 "run.textproto: train.weight_decay is -0.5; it must not be "
                 "below 0"},
        BadValue{"train.max_grad_norm=-1",
                 "run.textproto: train.max_grad_norm is -1; it must not be "
                 "below 0"},
        BadValue{"train.valid_every_steps=5",
                 "run.textproto: train.valid_every_steps is 5 but data.valid "
                 "names no file"},
        BadValue{"mesh.tensor=0",
                 "run.textproto: mesh.tensor is 0; it must be at least 1"},
        BadValue{"checkpoint.every_steps=-1",
                 "run.textproto: checkpoint.every_steps is -1; it must be at "
                 "least 0"},
        BadValue{"checkpoint.keep=-1",
                 "run.textproto: checkpoint.keep is -1; it must be at least 0"},
        BadValue{"checkpoint.keep_every_steps=-1",
                 "run.textproto: checkpoint.keep_every_steps is -1; it must be "
                 "at least 0"},
        BadValue{"checkpoint.before_seconds=-1",
                 "run.textproto: checkpoint.before_seconds is -1; it must not "
                 "be below 0"},
        BadValue{"checkpoint.resume=",
                 "run.textproto: checkpoint.resume is not given; set it, for "
                 "example to \"AUTO\""},
        BadValue{"train.outlier_factor=0.5",
                 "run.textproto: train.outlier_factor is 0.5; it must be above "
                 "1, or 0 for no limit"},
        BadValue{"train.max_anomalies=-1",
                 "run.textproto: train.max_anomalies is -1; it must be at "
                 "least 0"},
        BadValue{"report.every_steps=0",
                 "run.textproto: report.every_steps is 0; it must be at least "
                 "1"},
        BadValue{"threads=-1",
                 "run.textproto: threads is -1; it must be at least 0"}));

INSTANTIATE_TEST_SUITE_P(
    Overrides, BadValueTest,
    testing::Values(
        BadValue{"train.steps",
                 "--set train.steps: expected path=value, such as "
                 "train.steps=10"},
        BadValue{
            "train.stps=1",
            "--set train.stps=1: train has no field \"stps\"; it has "
            "steps, global_batch, micro_batch, learning_rate, "
            "warmup_steps, schedule, weight_decay, max_grad_norm, seed, "
            "valid_every_steps, on_anomaly, outlier_factor, max_anomalies"},
        BadValue{"trian.steps=1",
                 "--set trian.steps=1: the config has no field \"trian\"; it "
                 "has model, adapter, data, train, mesh, checkpoint, report, "
                 "device, threads, recompute, product_choices, "
                 "pass_graphs, cuda_attention"},
        BadValue{"mesh=2",
                 "--set mesh=2: mesh is a group of fields: data, tensor, "
                 "tensor_sequence, timeout_seconds, deterministic, "
                 "gradient_bucket_bytes"},
        BadValue{"threads.all=2",
                 "--set threads.all=2: threads is a single value, not a group "
                 "of fields"},
        BadValue{"train.steps=ten",
                 "--set train.steps=ten: expected a whole number, not \"ten\""},
        BadValue{"mesh.data=9999999999",
                 "--set mesh.data=9999999999: expected a whole number, not "
                 "\"9999999999\""},
        BadValue{"train.learning_rate=nan",
                 "--set train.learning_rate=nan: expected a number, not "
                 "\"nan\""},
        BadValue{"data.pack=maybe",
                 "--set data.pack=maybe: expected true or false, not "
                 "\"maybe\""},
        BadValue{"model.dtype=F16",
                 "--set model.dtype=F16: expected one of BF16, F32, not "
                 "\"F16\""}));

TEST(ConfigTest, GraphsAreRefusedBesideWhatTheyCannotHold) {
  EXPECT_EQ(ErrorOf(kLeast, {"pass_graphs=-1"}),
            "run.textproto: pass_graphs is -1; it must be at least 0");
  EXPECT_EQ(ErrorOf(kLeast, {"pass_graphs=8", "device=CPU"}),
            "run.textproto: pass_graphs is 8, but device is CPU, which has no "
            "graphs; set device to CUDA, or pass_graphs to 0");
}

TEST(ConfigTest, AttentionOfGpusIsRefusedOnCpus) {
  EXPECT_EQ(ErrorOf(kLeast, {"cuda_attention=OWN", "device=CPU"}),
            "run.textproto: cuda_attention is OWN, but device is CPU, which "
            "has one way of attention; set device to CUDA, or cuda_attention "
            "to CUDNN");
  EXPECT_EQ(Load(kLeast, {"cuda_attention=CUDNN_ANY_ORDER", "device=CUDA"})
                .cuda_attention,
            AttentionKernels::kCudnnAnyOrder);
}

TEST(ConfigTest, AllLinearStandsAlone) {
  EXPECT_EQ(
      ErrorOf(kLeast, {"adapter.target=all-linear", "adapter.target=q_proj"}),
      "run.textproto: adapter.target is \"all-linear\" beside other names; "
      "give it alone");
}

TEST(ConfigTest, ValuesThatAreNotNumbersAreRefused) {
  EXPECT_THAT(ErrorOf(absl::StrCat(kLeast, "train { learning_rate: nan }")),
              HasSubstr("train.learning_rate is nan; it must be above zero"));
  EXPECT_THAT(ErrorOf(absl::StrCat(kLeast, "adapter { alpha: inf }")),
              HasSubstr("adapter.alpha is inf; it must be above zero"));
}

}  // namespace
}  // namespace lorica
