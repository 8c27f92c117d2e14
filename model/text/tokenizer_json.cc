#include "model/text/tokenizer_json.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// More ids than tokens are vocabulary holes; a lone huge id is a broken file.
constexpr int64_t kMaxHoles = 1 << 20;

absl::Status Unsupported(absl::string_view place, absl::string_view what,
                         absl::string_view supported) {
  return absl::UnimplementedError(absl::StrCat(
      place, ": ", what, " is not supported; supported: ", supported));
}

// The "type" of a component, which is absent in some old files.
absl::StatusOr<std::string> TypeOf(const Json& component,
                                   const std::string& place) {
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields,
                          JsonFields::Of(component, place));
  std::string type;
  LORICA_RETURN_IF_ERROR(fields.Read("type", &type));
  return type;
}

// Calls `visit` with a component, or with each one of a Sequence.
template <typename Function>
absl::Status VisitSequence(const Json* component, const char* list_name,
                           const std::string& place, const Function& visit) {
  if (component == nullptr || component->is_null()) {
    return absl::OkStatus();
  }
  LORICA_ASSIGN_OR_RETURN(const std::string type, TypeOf(*component, place));
  if (type != "Sequence") {
    return visit(*component, type);
  }
  const auto list = component->find(list_name);
  if (list == component->end() || !list->is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": ", list_name, " is not a list"));
  }
  for (const Json& item : *list) {
    LORICA_ASSIGN_OR_RETURN(const std::string item_type, TypeOf(item, place));
    LORICA_RETURN_IF_ERROR(visit(item, item_type));
  }
  return absl::OkStatus();
}

class Parser {
 public:
  Parser(const Json& json, std::string place)
      : json_(json), place_(std::move(place)) {}

  absl::StatusOr<TokenizerData> Run() {
    LORICA_RETURN_IF_ERROR(ParseModel());
    LORICA_RETURN_IF_ERROR(ParseAddedTokens());
    LORICA_RETURN_IF_ERROR(
        Visit("normalizer", "normalizers", &Parser::ParseNormalizer));
    LORICA_RETURN_IF_ERROR(
        Visit("pre_tokenizer", "pretokenizers", &Parser::ParsePreTokenizer));
    LORICA_RETURN_IF_ERROR(
        Visit("post_processor", "processors", &Parser::ParsePostProcessor));
    LORICA_RETURN_IF_ERROR(ParseDecoder());
    return std::move(data_);
  }

 private:
  using Handler = absl::Status (Parser::*)(const Json&, const std::string&);

  absl::Status Visit(const char* name, const char* list_name, Handler handler) {
    const auto component = json_.find(name);
    return VisitSequence(component == json_.end() ? nullptr : &*component,
                         list_name, In(name),
                         [&](const Json& item, const std::string& type) {
                           return (this->*handler)(item, type);
                         });
  }

  std::string In(absl::string_view part) const {
    return absl::StrCat(place_, ": ", part);
  }

  absl::Status ParseModel();
  absl::Status ParseVocabulary(const Json& vocabulary);
  absl::Status ParseMerges(const Json& merges);
  absl::Status ParseAddedTokens();
  absl::Status ParseNormalizer(const Json& item, const std::string& type);
  absl::Status ParsePreTokenizer(const Json& item, const std::string& type);
  absl::Status ParseSplit(const Json& item);
  absl::Status ParsePostProcessor(const Json& item, const std::string& type);
  absl::Status ParseTemplate(const Json& item);
  absl::Status ParseDecoder();
  absl::Status PutToken(int64_t id, const std::string& token);

  const Json& json_;
  std::string place_;
  TokenizerData data_;
};

absl::Status Parser::ParseModel() {
  LORICA_ASSIGN_OR_RETURN(const JsonFields file, JsonFields::Of(json_, place_));
  if (!file.Has("model")) {
    return absl::InvalidArgumentError(
        absl::StrCat(place_, ": model is missing"));
  }
  LORICA_ASSIGN_OR_RETURN(const JsonFields model,
                          JsonFields::Of(*file.Find("model"), In("model")));
  std::string type = model.Has("merges") ? "BPE" : "unnamed";
  LORICA_RETURN_IF_ERROR(model.Read("type", &type));
  if (type != "BPE") {
    return Unsupported(place_, absl::StrCat("a model of type ", type), "BPE");
  }
  double dropout = 0;
  bool byte_fallback = false;
  LORICA_RETURN_IF_ERROR(model.Read("dropout", &dropout));
  LORICA_RETURN_IF_ERROR(model.Read("byte_fallback", &byte_fallback));
  if (dropout != 0) {
    return Unsupported(place_, "BPE dropout", "none");
  }
  if (byte_fallback) {
    return Unsupported(place_, "byte_fallback", "byte-level BPE");
  }
  for (const char* affix :
       {"continuing_subword_prefix", "end_of_word_suffix"}) {
    std::string value;
    LORICA_RETURN_IF_ERROR(model.Read(affix, &value));
    if (!value.empty()) {
      return Unsupported(place_, absl::StrCat(affix, " '", value, "'"), "none");
    }
  }
  LORICA_RETURN_IF_ERROR(model.Read("ignore_merges", &data_.ignore_merges));
  LORICA_RETURN_IF_ERROR(model.Read("fuse_unk", &data_.fuse_unk));
  for (const char* needed : {"vocab", "merges"}) {
    if (!model.Has(needed)) {
      return absl::InvalidArgumentError(
          absl::StrCat(In("model"), ": ", needed, " is missing"));
    }
  }
  LORICA_RETURN_IF_ERROR(ParseVocabulary(*model.Find("vocab")));
  LORICA_RETURN_IF_ERROR(ParseMerges(*model.Find("merges")));
  std::string unk;
  LORICA_RETURN_IF_ERROR(model.Read("unk_token", &unk));
  if (!unk.empty()) {
    const auto it = std::find(data_.tokens.begin(), data_.tokens.end(), unk);
    if (it == data_.tokens.end()) {
      return model.Refuse("unk_token", "the vocabulary lacks it");
    }
    data_.unk = static_cast<int32_t>(it - data_.tokens.begin());
  }
  return absl::OkStatus();
}

absl::Status Parser::PutToken(int64_t id, const std::string& token) {
  const auto known = static_cast<int64_t>(data_.tokens.size());
  if (id < 0 || id >= known + kMaxHoles) {
    return absl::InvalidArgumentError(
        absl::StrCat(place_, ": token '", token, "' has id ", id,
                     ", out of range for a vocabulary of ", known));
  }
  if (id >= known) {
    data_.tokens.resize(id + 1);
  }
  if (!data_.tokens[id].empty() && data_.tokens[id] != token) {
    return absl::InvalidArgumentError(
        absl::StrCat(place_, ": tokens '", data_.tokens[id], "' and '", token,
                     "' share the id ", id));
  }
  data_.tokens[id] = token;
  return absl::OkStatus();
}

absl::Status Parser::ParseVocabulary(const Json& vocabulary) {
  if (!vocabulary.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(In("model"), ": vocab is not an object"));
  }
  data_.tokens.resize(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) {
    if (!id.is_number_integer()) {
      return absl::InvalidArgumentError(absl::StrCat(
          In("model.vocab"), ": the id of '", token, "' is not an integer"));
    }
    LORICA_RETURN_IF_ERROR(PutToken(id.get<int64_t>(), token));
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseMerges(const Json& merges) {
  const auto wrong = [&](size_t index) {
    return absl::InvalidArgumentError(
        absl::StrCat(In("model.merges"), ": merge ", index,
                     " is neither \"left right\" nor [\"left\", \"right\"]"));
  };
  if (!merges.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(In("model"), ": merges is not a list"));
  }
  for (const Json& merge : merges) {
    const size_t index = data_.merges.size();
    if (merge.is_string()) {
      const std::vector<std::string> parts =
          absl::StrSplit(merge.get_ref<const std::string&>(), ' ');
      if (parts.size() != 2) {
        return wrong(index);
      }
      data_.merges.emplace_back(parts[0], parts[1]);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      data_.merges.emplace_back(merge[0].get<std::string>(),
                                merge[1].get<std::string>());
    } else {
      return wrong(index);
    }
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseAddedTokens() {
  const auto list = json_.find("added_tokens");
  if (list == json_.end() || list->is_null()) {
    return absl::OkStatus();
  }
  if (!list->is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place_, ": added_tokens is not a list"));
  }
  const auto num_model_ids = static_cast<int64_t>(data_.tokens.size());
  for (const Json& item : *list) {
    LORICA_ASSIGN_OR_RETURN(const JsonFields fields,
                            JsonFields::Of(item, In("added_tokens")));
    AddedToken token;
    int64_t id = 0;
    LORICA_RETURN_IF_ERROR(fields.Require("id", &id));
    LORICA_RETURN_IF_ERROR(fields.Require("content", &token.content));
    LORICA_RETURN_IF_ERROR(fields.Read("single_word", &token.single_word));
    LORICA_RETURN_IF_ERROR(fields.Read("lstrip", &token.lstrip));
    LORICA_RETURN_IF_ERROR(fields.Read("rstrip", &token.rstrip));
    LORICA_RETURN_IF_ERROR(fields.Read("special", &token.special));
    token.normalized = !token.special;
    LORICA_RETURN_IF_ERROR(fields.Read("normalized", &token.normalized));
    if (token.content.empty()) {
      return fields.Refuse("content", "an added token needs a text");
    }
    token.in_model =
        id >= 0 && id < num_model_ids && data_.tokens[id] == token.content;
    LORICA_RETURN_IF_ERROR(PutToken(id, token.content));
    token.id = static_cast<int32_t>(id);
    data_.added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseNormalizer(const Json&, const std::string& type) {
  if (type != "NFC") {
    return Unsupported(place_, absl::StrCat("the normalizer ", type), "NFC");
  }
  data_.normalizer = Normalizer::kNfc;
  return absl::OkStatus();
}

absl::Status Parser::ParsePreTokenizer(const Json& item,
                                       const std::string& type) {
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields,
                          JsonFields::Of(item, In("pre_tokenizer")));
  if (type == "ByteLevel") {
    ByteLevelStep step{.add_prefix_space = true};
    LORICA_RETURN_IF_ERROR(
        fields.Read("add_prefix_space", &step.add_prefix_space));
    LORICA_RETURN_IF_ERROR(fields.Read("use_regex", &step.use_regex));
    data_.pre_tokenizer.push_back(step);
  } else if (type == "Digits") {
    DigitsStep step;
    LORICA_RETURN_IF_ERROR(fields.Read("individual_digits", &step.individual));
    data_.pre_tokenizer.push_back(step);
  } else if (type == "Split") {
    return ParseSplit(item);
  } else {
    return Unsupported(place_, absl::StrCat("the pre-tokenizer ", type),
                       "ByteLevel, Digits, Split and a Sequence of them");
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseSplit(const Json& item) {
  static constexpr std::array<std::pair<const char*, SplitBehavior>, 5>
      kBehaviors = {{
          {"Removed", SplitBehavior::kRemoved},
          {"Isolated", SplitBehavior::kIsolated},
          {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
          {"MergedWithNext", SplitBehavior::kMergedWithNext},
          {"Contiguous", SplitBehavior::kContiguous},
      }};
  LORICA_ASSIGN_OR_RETURN(const JsonFields fields,
                          JsonFields::Of(item, In("pre_tokenizer Split")));
  SplitStep step;
  const Json* pattern = fields.Find("pattern");
  if (pattern == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(In("pre_tokenizer Split"), ": pattern is missing"));
  }
  LORICA_ASSIGN_OR_RETURN(
      const JsonFields pattern_fields,
      JsonFields::Of(*pattern, In("pre_tokenizer Split pattern")));
  if (pattern_fields.Has("String")) {
    step.kind = PatternKind::kLiteral;
    LORICA_RETURN_IF_ERROR(pattern_fields.Read("String", &step.pattern));
  } else {
    LORICA_RETURN_IF_ERROR(pattern_fields.Require("Regex", &step.pattern));
  }
  std::string behavior;
  LORICA_RETURN_IF_ERROR(fields.Require("behavior", &behavior));
  const auto it =
      std::find_if(kBehaviors.begin(), kBehaviors.end(),
                   [&](const auto& known) { return behavior == known.first; });
  if (it == kBehaviors.end()) {
    return fields.Refuse("behavior", "that is none of the five behaviors");
  }
  step.behavior = it->second;
  LORICA_RETURN_IF_ERROR(fields.Read("invert", &step.invert));
  data_.pre_tokenizer.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Parser::ParsePostProcessor(const Json& item,
                                        const std::string& type) {
  if (type == "TemplateProcessing") {
    return ParseTemplate(item);
  }
  // ByteLevel concerns offsets only.
  return type == "ByteLevel"
             ? absl::OkStatus()
             : Unsupported(place_, absl::StrCat("the post-processor ", type),
                           "TemplateProcessing, ByteLevel and a Sequence of "
                           "them");
}

// A later template goes around what an earlier one made.
absl::Status Parser::ParseTemplate(const Json& item) {
  const auto wrong = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(In("post_processor TemplateProcessing"), ": ", what));
  };
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  bool seen = false;
  const auto single = item.find("single");
  if (single == item.end() || !single->is_array()) {
    return wrong("single is not a list");
  }
  for (const Json& piece : *single) {
    if (piece.is_object() && piece.contains("Sequence") && !seen) {
      seen = true;
      continue;
    }
    const Json::json_pointer name_at("/SpecialToken/id");
    if (!piece.is_object() || !piece.contains(name_at) ||
        !piece[name_at].is_string()) {
      return wrong("single is not one Sequence among SpecialTokens");
    }
    const std::string name = piece[name_at].get<std::string>();
    const auto tokens = item.find("special_tokens");
    const bool listed = tokens != item.end() && tokens->is_object() &&
                        tokens->contains(name) && (*tokens)[name].is_object() &&
                        (*tokens)[name].contains("ids") &&
                        (*tokens)[name]["ids"].is_array();
    if (!listed) {
      return wrong(absl::StrCat("special_tokens has no ids for ", name));
    }
    for (const Json& id : (*tokens)[name]["ids"]) {
      const bool exists =
          id.is_number_unsigned() && id.get<uint64_t>() < data_.tokens.size();
      if (!exists) {
        return wrong(absl::StrCat("an id of ", name, " is out of range"));
      }
      (seen ? after : before).push_back(id.get<int32_t>());
    }
  }
  if (!seen) {
    return wrong("single has no Sequence");
  }
  data_.prefix.insert(data_.prefix.begin(), before.begin(), before.end());
  data_.suffix.insert(data_.suffix.end(), after.begin(), after.end());
  return absl::OkStatus();
}

absl::Status Parser::ParseDecoder() {
  int count = 0;
  LORICA_RETURN_IF_ERROR(VisitSequence(
      json_.contains("decoder") ? &json_["decoder"] : nullptr, "decoders",
      In("decoder"), [&](const Json&, const std::string& type) {
        ++count;
        return type == "ByteLevel"
                   ? absl::OkStatus()
                   : Unsupported(place_, absl::StrCat("the decoder ", type),
                                 "ByteLevel");
      }));
  return count == 1 ? absl::OkStatus()
                    : Unsupported(place_, absl::StrCat(count, " decoders"),
                                  "one, ByteLevel");
}

}  // namespace

absl::StatusOr<TokenizerData> ParseTokenizerJson(const Json& json,
                                                 const std::string& place) {
  return Parser(json, place).Run();
}

}  // namespace lorica
