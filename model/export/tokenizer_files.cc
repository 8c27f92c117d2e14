#include <map>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "model/export/model_files.h"

namespace lorica {
namespace {

const char* NameOf(SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      return "Removed";
    case SplitBehavior::kIsolated:
      return "Isolated";
    case SplitBehavior::kMergedWithPrevious:
      return "MergedWithPrevious";
    case SplitBehavior::kMergedWithNext:
      return "MergedWithNext";
    case SplitBehavior::kContiguous:
      return "Contiguous";
  }
  return "";
}

Json JsonOf(const SplitStep& step) {
  const char* kind = step.kind == PatternKind::kRegex ? "Regex" : "String";
  return {{"type", "Split"},
          {"pattern", {{kind, step.pattern}}},
          {"behavior", NameOf(step.behavior)},
          {"invert", step.invert}};
}

Json JsonOf(const DigitsStep& step) {
  return {{"type", "Digits"}, {"individual_digits", step.individual}};
}

Json JsonOf(const ByteLevelStep& step) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", step.add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", step.use_regex}};
}

Json JsonOf(const AddedToken& token) {
  return {{"id", token.id},
          {"content", token.content},
          {"single_word", token.single_word},
          {"lstrip", token.lstrip},
          {"rstrip", token.rstrip},
          {"normalized", token.normalized},
          {"special", token.special}};
}

Json ModelOf(const TokenizerData& data) {
  Json vocab = Json::object();
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (!data.tokens[id].empty()) vocab[data.tokens[id]] = id;
  }
  Json merges = Json::array();
  for (const auto& [left, right] : data.merges) {
    merges.push_back(Json::array({left, right}));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token",
           data.unk.has_value() ? Json(data.tokens[*data.unk]) : Json()},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", data.fuse_unk},
          {"byte_fallback", false},
          {"ignore_merges", data.ignore_merges},
          {"vocab", vocab},
          {"merges", merges}};
}

// The tokens around a text; without any, ByteLevel, which concerns offsets.
Json PostProcessorOf(const TokenizerData& data) {
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", true},
                           {"trim_offsets", false},
                           {"use_regex", true}};
  if (data.prefix.empty() && data.suffix.empty()) return byte_level;
  Json single = Json::array();
  Json pair = Json::array();
  Json tokens = Json::object();
  const auto add = [&](const std::vector<int32_t>& ids, const char* sequence,
                       int type, Json* list) {
    for (const int32_t id : ids) {
      const std::string& name = data.tokens[id];
      tokens[name] = {{"id", name},
                      {"ids", Json::array({id})},
                      {"tokens", Json::array({name})}};
      list->push_back({{"SpecialToken", {{"id", name}, {"type_id", type}}}});
    }
    if (sequence != nullptr) {
      list->push_back({{"Sequence", {{"id", sequence}, {"type_id", type}}}});
    }
  };
  add(data.prefix, "A", 0, &single);
  add(data.suffix, nullptr, 0, &single);
  pair = single;
  add(data.prefix, "B", 1, &pair);
  add(data.suffix, nullptr, 1, &pair);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

}  // namespace

Json TokenizerJsonOf(const TokenizerData& data) {
  Json added = Json::array();
  for (const AddedToken& token : data.added_tokens) {
    added.push_back(JsonOf(token));
  }
  Json steps = Json::array();
  for (const PreTokenizerStep& step : data.pre_tokenizer) {
    steps.push_back(std::visit([](const auto& s) { return JsonOf(s); }, step));
  }
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer",
       data.normalizer == Normalizer::kNfc ? Json{{"type", "NFC"}} : Json()},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}}},
      {"post_processor", PostProcessorOf(data)},
      {"decoder",
       {{"type", "ByteLevel"},
        {"add_prefix_space", true},
        {"trim_offsets", true},
        {"use_regex", true}}},
      {"model", ModelOf(data)}};
}

Json TokenizerConfigJsonOf(const TokenizerData& data) {
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"clean_up_tokenization_spaces", false}};
  const auto put = [&](const char* name, const std::optional<int32_t>& id) {
    if (id.has_value()) json[name] = data.tokens[*id];
  };
  put("bos_token", data.bos);
  put("eos_token", data.eos);
  put("pad_token", data.pad);
  if (!data.chat_template.empty()) json["chat_template"] = data.chat_template;
  return json;
}

}  // namespace lorica
