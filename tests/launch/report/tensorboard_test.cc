#include "launch/report/tensorboard.h"

#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"

namespace lorica {
namespace {

using google::protobuf::Message;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// An independent reader of what TensorBoard defines: the same schema, parsed by
// protobuf itself.
constexpr char kSchema[] = R"(
  name: "event.proto"
  message_type {
    name: "Event"
    field { name: "wall_time" number: 1 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
    field { name: "step" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL }
    field { name: "file_version" number: 3 type: TYPE_STRING
            label: LABEL_OPTIONAL }
    field { name: "summary" number: 5 type: TYPE_MESSAGE type_name: "Summary"
            label: LABEL_OPTIONAL }
  }
  message_type {
    name: "Summary"
    field { name: "value" number: 1 type: TYPE_MESSAGE type_name: "Value"
            label: LABEL_REPEATED }
  }
  message_type {
    name: "Value"
    field { name: "tag" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "simple_value" number: 2 type: TYPE_FLOAT
            label: LABEL_OPTIONAL }
  }
)";

class EventReader {
 public:
  EventReader() {
    google::protobuf::FileDescriptorProto schema;
    EXPECT_TRUE(
        google::protobuf::TextFormat::ParseFromString(kSchema, &schema));
    event_ = pool_.BuildFile(schema)->FindMessageTypeByName("Event");
  }

  // The events as text; the wall time must be there and is left out.
  std::vector<std::string> Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    std::vector<std::string> events;
    for (size_t at = 0; at < bytes.size();) {
      uint64_t size = 0;
      std::memcpy(&size, bytes.data() + at, sizeof(size));
      ExpectCrc(bytes, at, sizeof(size));
      at += sizeof(size) + sizeof(uint32_t);
      ExpectCrc(bytes, at, size);
      events.push_back(Parse(bytes.substr(at, size)));
      at += size + sizeof(uint32_t);
    }
    return events;
  }

 private:
  static void ExpectCrc(const std::string& bytes, size_t at, size_t size) {
    uint32_t crc = 0;
    ASSERT_LE(at + size + sizeof(crc), bytes.size());
    std::memcpy(&crc, bytes.data() + at + size, sizeof(crc));
    EXPECT_EQ(crc, MaskedCrc32c(absl::string_view(bytes).substr(at, size)));
  }

  std::string Parse(const std::string& bytes) {
    const std::unique_ptr<Message> event(factory_.GetPrototype(event_)->New());
    EXPECT_TRUE(event->ParseFromString(bytes));
    const auto* wall_time = event_->FindFieldByName("wall_time");
    EXPECT_GT(event->GetReflection()->GetDouble(*event, wall_time), 1.6e9);
    event->GetReflection()->ClearField(event.get(), wall_time);
    EXPECT_TRUE(event->GetReflection()->GetUnknownFields(*event).empty());
    return event->ShortDebugString();
  }

  google::protobuf::DescriptorPool pool_;
  google::protobuf::DynamicMessageFactory factory_;
  const google::protobuf::Descriptor* event_ = nullptr;
};

TEST(TensorBoardTest, EventsReadBack) {
  auto writer = EventWriter::Create(testing::TempDir());
  ASSERT_TRUE(writer.ok()) << writer.status();
  StepMetrics step;
  step.step = 300;
  step.loss = 2.5;
  step.learning_rate = 0.25;
  ASSERT_TRUE(writer->Write(step).ok());
  step.peak_device_bytes = 1 << 20;
  ASSERT_TRUE(writer->Write(step).ok());
  ValidMetrics valid;
  valid.step = 300;
  valid.valid_loss = 1.5;
  ASSERT_TRUE(writer->Write(valid).ok());

  const std::vector<std::string> events = EventReader().Read(writer->path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0], "step: 0 file_version: \"brain.Event:2\"");
  EXPECT_THAT(
      events[1],
      AllOf(HasSubstr("step: 300 summary"),
            HasSubstr("value { tag: \"train/loss\" simple_value: 2.5 }"),
            HasSubstr(
                "value { tag: \"train/learning_rate\" simple_value: 0.25 }")));
  constexpr char kOfGpus[] = "value { tag: \"memory/peak_device_bytes\" ";
  EXPECT_THAT(events[1], Not(HasSubstr(kOfGpus)));
  EXPECT_THAT(events[2],
              HasSubstr(std::string(kOfGpus) + "simple_value: 1048576 }"));
  EXPECT_EQ(events[3],
            "step: 300 summary { value { tag: \"valid/loss\" simple_value: 1.5 "
            "} }");
}

// The check values of RFC 3720, appendix B.4.
TEST(TensorBoardTest, CrcIsThatOfIscsi) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
}

TEST(TensorBoardTest, AFolderThatCannotBeMadeIsNamed) {
  const auto writer = EventWriter::Create("/dev/null/events");
  ASSERT_FALSE(writer.ok());
  EXPECT_THAT(std::string(writer.status().message()),
              HasSubstr("cannot make the directory /dev/null/events: "));
}

}  // namespace
}  // namespace lorica
