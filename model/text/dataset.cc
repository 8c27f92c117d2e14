#include "model/text/dataset.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "model/text/bpe/unicode.h"
#include "model/text/chat_template.h"
#include "runtime/files/json.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

void Append(const std::vector<int32_t>& tokens, uint8_t is_target,
            Record* record) {
  record->tokens.insert(record->tokens.end(), tokens.begin(), tokens.end());
  record->is_target.resize(record->tokens.size(), is_target);
}

// Lines to records, one after another.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const DatasetOptions& options)
      : tokenizer_(tokenizer), options_(options) {}

  absl::StatusOr<Record> Encode(absl::string_view line,
                                const std::string& place);

 private:
  absl::Status AddText(const JsonFields& fields, Record* record);
  absl::Status AddCompletion(const JsonFields& fields, Record* record);
  absl::Status AddMessages(const JsonFields& fields, absl::string_view line,
                           Record* record);
  absl::Status AddEndMark(Record* record);
  void MarkTurn(const ByteRange& turn, const Encoding& encoding,
                absl::string_view text, Record* record);

  const Tokenizer& tokenizer_;
  const DatasetOptions& options_;
  std::optional<ChatTemplate> chat_template_;  // Made for the first messages.
};

absl::StatusOr<Record> Encoder::Encode(absl::string_view line,
                                       const std::string& place) {
  LORICA_RETURN_IF_ERROR(CheckUtf8(line));
  absl::StatusOr<Json> parsed = ParseJson(line, place);
  if (!parsed.ok()) {
    // A record is line 1 of itself.
    return absl::InvalidArgumentError(absl::StrReplaceAll(
        parsed.status().message(),
        {{absl::StrCat(place, ":1:"), absl::StrCat(place, ": column ")}}));
  }
  const Json json = *std::move(parsed);
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, place));
  const bool text = fields.Has("text");
  const bool completion = fields.Has("prompt") || fields.Has("completion");
  const bool messages = fields.Has("messages");
  if (text + completion + messages != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        place,
        ": a record has either text, or prompt and completion, or "
        "messages; this one has ",
        text + completion + messages == 0 ? "none of them"
                                          : "more than one of them"));
  }
  Record record;
  LORICA_RETURN_IF_ERROR(text         ? AddText(fields, &record)
                         : completion ? AddCompletion(fields, &record)
                                      : AddMessages(fields, line, &record));
  if (!record.is_target.empty()) {
    record.is_target[0] = 0;
  }
  return record;
}

absl::Status Encoder::AddEndMark(Record* record) {
  if (!tokenizer_.eos().has_value()) {
    return absl::FailedPreconditionError(
        "the tokenizer names no eos token to end a record with; records of "
        "text need none if data.append_eos is false");
  }
  // Some tokenizers have put it there themselves.
  if (record->tokens.empty() || record->tokens.back() != *tokenizer_.eos()) {
    Append({*tokenizer_.eos()}, 1, record);
  }
  return absl::OkStatus();
}

absl::Status Encoder::AddText(const JsonFields& fields, Record* record) {
  std::string text;
  LORICA_RETURN_IF_ERROR(fields.Require("text", &text));
  LORICA_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                          tokenizer_.Encode(text, SpecialTokens::kInclude));
  Append(tokens, 1, record);
  return options_.end_mark == EndMark::kOmit ? absl::OkStatus()
                                             : AddEndMark(record);
}

absl::Status Encoder::AddCompletion(const JsonFields& fields, Record* record) {
  std::string prompt;
  std::string completion;
  LORICA_RETURN_IF_ERROR(fields.Require("prompt", &prompt));
  LORICA_RETURN_IF_ERROR(fields.Require("completion", &completion));
  LORICA_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt_tokens,
                          tokenizer_.Encode(prompt, SpecialTokens::kInclude));
  LORICA_ASSIGN_OR_RETURN(const std::vector<int32_t> completion_tokens,
                          tokenizer_.Encode(completion, SpecialTokens::kOmit));
  Append(prompt_tokens, 0, record);
  Append(completion_tokens, 1, record);
  return AddEndMark(record);
}

// Whether structures nest more than `levels` deep. Templates walk them
// recursively.
bool NestsBeyond(const Json& value, int levels) {
  return value.is_structured() &&
         (levels == 0 ||
          std::any_of(value.begin(), value.end(), [&](const Json& item) {
            return NestsBeyond(item, levels - 1);
          }));
}

absl::Status CheckMessages(const Json& messages, const JsonFields& fields) {
  if (!messages.is_array() || messages.empty()) {
    return fields.Refuse("messages", "a list of messages is needed");
  }
  constexpr int kMaxLevels = 50;
  if (NestsBeyond(messages, kMaxLevels)) {
    return fields.Refuse("messages", "it nests more than 50 levels deep");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    LORICA_ASSIGN_OR_RETURN(
        const JsonFields message,
        JsonFields::Of(messages[i], absl::StrCat("messages[", i, "]")));
    std::string text;
    LORICA_RETURN_IF_ERROR(message.Require("role", &text));
    // A turn of tool calls has no content.
    LORICA_RETURN_IF_ERROR(message.Has("tool_calls")
                               ? message.Read("content", &text)
                               : message.Require("content", &text));
  }
  return absl::OkStatus();
}

absl::Status Encoder::AddMessages(const JsonFields& fields,
                                  absl::string_view line, Record* record) {
  LORICA_RETURN_IF_ERROR(CheckMessages(*fields.Find("messages"), fields));
  if (!chat_template_.has_value()) {
    LORICA_ASSIGN_OR_RETURN(chat_template_, ChatTemplate::Create(tokenizer_));
  }
  // Parsed again, since templates see the order of keys.
  const Messages record_json = Messages::parse(line.begin(), line.end());
  LORICA_ASSIGN_OR_RETURN(const ChatTemplate::Conversation conversation,
                          chat_template_->RenderTurns(record_json["messages"]));
  LORICA_ASSIGN_OR_RETURN(
      const Encoding encoding,
      tokenizer_.EncodeWithRanges(conversation.text, SpecialTokens::kOmit));
  Append(encoding.ids, 0, record);
  for (const ByteRange& turn : conversation.assistant) {
    MarkTurn(turn, encoding, conversation.text, record);
  }
  return absl::OkStatus();
}

void Encoder::MarkTurn(const ByteRange& turn, const Encoding& encoding,
                       absl::string_view text, Record* record) {
  size_t end = turn.end;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    const ByteRange& range = encoding.ranges[i];
    const bool inside = range.begin >= turn.begin && range.end <= turn.end;
    if (inside && tokenizer_.IsSpecial(encoding.ids[i]) &&
        absl::StripAsciiWhitespace(text.substr(range.end, turn.end - range.end))
            .empty()) {
      end = range.end;
      break;
    }
  }
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    const ByteRange& range = encoding.ranges[i];
    if (range.begin < end && range.end > turn.begin) {
      record->is_target[i] = 1;
    }
  }
}

absl::Status Fit(const DatasetOptions& options, const std::string& place,
                 Record* record, Dataset* dataset) {
  const int64_t size = record->num_tokens();
  if (options.max_tokens == 0 || size <= options.max_tokens) {
    return absl::OkStatus();
  }
  if (options.long_records == LongRecords::kRefuse) {
    return absl::InvalidArgumentError(absl::StrCat(
        place, ": the record has ", size,
        " tokens, more than data.sequence_length, ", options.max_tokens));
  }
  record->tokens.resize(options.max_tokens);
  record->is_target.resize(options.max_tokens);
  ++dataset->num_cut;
  return absl::OkStatus();
}

// The status with the place in front, unless the message has it already.
absl::Status At(const std::string& place, const absl::Status& status) {
  return absl::StartsWith(status.message(), place)
             ? status
             : absl::Status(status.code(),
                            absl::StrCat(place, ": ", status.message()));
}

}  // namespace

int64_t Record::NumTargets() const {
  return std::count(is_target.begin(), is_target.end(), 1);
}

absl::StatusOr<Dataset> ParseDataset(absl::string_view lines,
                                     const std::string& name,
                                     const Tokenizer& tokenizer,
                                     const DatasetOptions& options) {
  Dataset dataset;
  Encoder encoder(tokenizer, options);
  int64_t number = 0;
  while (!lines.empty()) {
    const size_t end = lines.find('\n');
    const absl::string_view line = lines.substr(0, end);
    lines.remove_prefix(end == absl::string_view::npos ? lines.size()
                                                       : end + 1);
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) {
      continue;
    }
    const std::string place = absl::StrCat(name, ":", number);
    absl::StatusOr<Record> record = encoder.Encode(line, place);
    if (!record.ok()) {
      return At(place, record.status());
    }
    record->line = number;
    LORICA_RETURN_IF_ERROR(Fit(options, place, &*record, &dataset));
    dataset.num_without_target += record->NumTargets() == 0 ? 1 : 0;
    dataset.records.push_back(*std::move(record));
  }
  if (dataset.records.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " holds no record: a JSON object a line is needed"));
  }
  return dataset;
}

absl::StatusOr<Dataset> ReadDataset(const std::string& path,
                                    const Tokenizer& tokenizer,
                                    const DatasetOptions& options) {
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  return ParseDataset(file->bytes(), path, tokenizer, options);
}

}  // namespace lorica
