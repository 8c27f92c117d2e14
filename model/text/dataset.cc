#include "model/text/dataset.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/files/json.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// The string of a key, where the record has it.
absl::StatusOr<std::string> StringOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\" is missing or not a string"));
  }
  return found->get<std::string>();
}

class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const DatasetOptions& options)
      : tokenizer_(tokenizer), options_(options) {}

  absl::StatusOr<Record> Encode(const Json& object) const {
    if (!object.is_object()) {
      return absl::InvalidArgumentError("a record is a JSON object");
    }
    if (object.contains("text")) return Text(object);
    if (object.contains("prompt")) return Completion(object);
    return absl::InvalidArgumentError(
        "a record has \"text\", or \"prompt\" and \"completion\"");
  }

 private:
  absl::StatusOr<Record> Text(const Json& object) const {
    LORICA_ASSIGN_OR_RETURN(const std::string text, StringOf(object, "text"));
    Record record;
    LORICA_RETURN_IF_ERROR(Append(text, SpecialTokens::kInclude, 1, &record));
    if (!record.trained.empty()) record.trained[0] = 0;
    AppendEos(&record);
    return record;
  }

  absl::StatusOr<Record> Completion(const Json& object) const {
    LORICA_ASSIGN_OR_RETURN(const std::string prompt,
                            StringOf(object, "prompt"));
    LORICA_ASSIGN_OR_RETURN(const std::string completion,
                            StringOf(object, "completion"));
    Record record;
    LORICA_RETURN_IF_ERROR(Append(prompt, SpecialTokens::kInclude, 0, &record));
    LORICA_RETURN_IF_ERROR(
        Append(completion, SpecialTokens::kOmit, 1, &record));
    if (!record.trained.empty()) record.trained[0] = 0;
    AppendEos(&record);
    return record;
  }

  absl::Status Append(const std::string& text, SpecialTokens special,
                      uint8_t trained, Record* record) const {
    LORICA_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                            tokenizer_.Encode(text, special));
    record->tokens.insert(record->tokens.end(), ids.begin(), ids.end());
    record->trained.resize(record->tokens.size(), trained);
    return absl::OkStatus();
  }

  void AppendEos(Record* record) const {
    if (!options_.append_eos || !tokenizer_.eos().has_value()) return;
    record->trained.push_back(record->tokens.empty() ? 0 : 1);
    record->tokens.push_back(*tokenizer_.eos());
  }

  const Tokenizer& tokenizer_;
  const DatasetOptions& options_;
};

// Cuts a record that is too long, or refuses it.
absl::Status Fit(const DatasetOptions& options, Record* record,
                 Dataset* dataset) {
  const auto tokens = static_cast<int64_t>(record->tokens.size());
  if (tokens <= options.max_tokens) return absl::OkStatus();
  if (options.overlong == Overlong::kRefuse) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the record has ", tokens, " tokens and data.sequence_length is ",
        options.max_tokens, "; raise it, or set data.overlong to CUT"));
  }
  record->tokens.resize(static_cast<size_t>(options.max_tokens));
  record->trained.resize(static_cast<size_t>(options.max_tokens));
  ++dataset->cut;
  return absl::OkStatus();
}

absl::Status At(const std::string& place, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(place, ": ", status.message()));
}

}  // namespace

absl::StatusOr<Dataset> LoadDataset(const std::string& path,
                                    const Tokenizer& tokenizer,
                                    const DatasetOptions& options) {
  LORICA_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  absl::string_view rest = file->bytes();
  const Encoder encoder(tokenizer, options);
  Dataset dataset;
  int64_t trained = 0;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const absl::string_view line =
        absl::StripAsciiWhitespace(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.empty()) continue;
    const std::string place = absl::StrCat(path, ": line ", number);
    LORICA_ASSIGN_OR_RETURN(const Json json, ParseJson(line, place));
    absl::StatusOr<Record> record = encoder.Encode(json);
    if (!record.ok()) return At(place, record.status());
    if (record->tokens.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": the record has no tokens"));
    }
    const absl::Status fit = Fit(options, &*record, &dataset);
    if (!fit.ok()) return At(place, fit);
    const int64_t targets = std::accumulate(record->trained.begin(),
                                            record->trained.end(), int64_t{0});
    dataset.untrained += targets == 0 ? 1 : 0;
    trained += targets;
    dataset.records.push_back(*std::move(record));
  }
  if (dataset.records.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": there are no records in it"));
  }
  if (trained == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no record has a token to train on within ",
                     options.max_tokens, " tokens"));
  }
  return dataset;
}

}  // namespace lorica
