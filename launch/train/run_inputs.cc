#include "launch/train/run_inputs.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/config/field_error.h"
#include "model/text/load_tokenizer.h"
#include "model/text/packing.h"
#include "runtime/files/checksum.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::Status Differs(const char* field, const std::string& here,
                     const std::string& there, const std::string& directory) {
  return absl::InvalidArgumentError(
      absl::StrCat("adapter.", field, " is ", here, " and that of ", directory,
                   ", which adapter.init_from names, is ", there,
                   "; leave one of them out"));
}

// What the config says beside init_from must be what the directory says.
absl::Status CheckAgainst(const AdapterOptions& options,
                          const LoraConfig& lora) {
  const std::string& from = options.init_from;
  if (options.rank.has_value() && *options.rank != lora.rank) {
    return Differs("rank", absl::StrCat(*options.rank), absl::StrCat(lora.rank),
                   from);
  }
  if (options.alpha.has_value() && *options.alpha != lora.alpha) {
    return Differs("alpha", absl::StrCat(*options.alpha),
                   absl::StrCat(lora.alpha), from);
  }
  using Names = std::set<std::string>;
  const Names here(options.targets.begin(), options.targets.end());
  const Names there(lora.targets.begin(), lora.targets.end());
  if (!here.empty() && here != there) {
    return Differs("target", absl::StrJoin(here, " "),
                   absl::StrJoin(there, " "), from);
  }
  const bool rslora = lora.scaling == LoraScaling::kRankStabilized;
  if (options.rslora.has_value() && *options.rslora != rslora) {
    return Differs("rslora", *options.rslora ? "true" : "false",
                   rslora ? "true" : "false", from);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AdapterSource> OpenAdapterSource(const AdapterOptions& options) {
  AdapterSource source;
  if (!options.init_from.empty()) {
    LORICA_ASSIGN_OR_RETURN(
        source.peft,
        Of("adapter.init_from", ReadPeftAdapter(options.init_from)));
    LORICA_RETURN_IF_ERROR(CheckAgainst(options, source.peft->lora));
    source.lora = source.peft->lora;
  } else {
    source.lora.rank = options.rank.value();
    source.lora.alpha = options.alpha.value();
    source.lora.scaling = options.rslora.value() ? LoraScaling::kRankStabilized
                                                 : LoraScaling::kStandard;
    source.lora.targets = options.targets;
  }
  source.lora.dropout = static_cast<float>(options.dropout);
  return source;
}

absl::StatusOr<RunData> LoadData(const RunConfig& config) {
  LORICA_ASSIGN_OR_RETURN(const Tokenizer tokenizer,
                          Of("model.path", LoadTokenizer(config.model.path)));
  const DatasetOptions options = {
      .end_mark = config.data.append_eos ? EndMark::kAppendEos : EndMark::kOmit,
      .max_tokens = config.data.sequence_length,
      .long_records = config.data.overlong};
  LORICA_ASSIGN_OR_RETURN(
      Dataset train,
      Of("data.train", ReadDataset(config.data.train, tokenizer, options)));
  LORICA_ASSIGN_OR_RETURN(
      DataOrder order,
      Of(absl::StrCat("data.train ", config.data.train),
         MakeDataOrder(
             train, {.row_tokens = config.data.sequence_length,
                     .packing = config.data.pack ? Packing::kSeveralPerRow
                                                 : Packing::kOnePerRow,
                     .shuffling = config.data.shuffle ? Shuffling::kEachEpoch
                                                      : Shuffling::kFileOrder,
                     .seed = static_cast<uint64_t>(config.train.seed)})));
  LORICA_ASSIGN_OR_RETURN(
      const auto records,
      Of("data.train", MappedFile::Open(config.data.train)));
  RunData data = {.train = std::move(train),
                  .order = std::move(order),
                  .valid = std::nullopt,
                  .train_checksum = Checksum(records->bytes())};
  if (!config.data.valid.empty()) {
    LORICA_ASSIGN_OR_RETURN(
        data.valid,
        Of("data.valid", ReadDataset(config.data.valid, tokenizer, options)));
    if (data.valid->num_without_target == std::ssize(data.valid->records)) {
      return absl::InvalidArgumentError(absl::StrCat(
          config.data.valid, ": no record has a token to predict within ",
          config.data.sequence_length, " tokens (data.sequence_length)"));
    }
  }
  return data;
}

absl::Status CheckPositions(const RunConfig& config, const RunData& data,
                            int64_t positions) {
  const auto check = [&](const std::string& path, const Dataset& records) {
    for (const Record& record : records.records) {
      if (record.num_tokens() <= positions) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "data.sequence_length is ", config.data.sequence_length, " and ",
          path, ":", record.line, " has ", record.num_tokens(),
          " tokens, but the model has ", positions,
          " positions; set data.sequence_length to at most ", positions));
    }
    return absl::OkStatus();
  };
  LORICA_RETURN_IF_ERROR(check(config.data.train, data.train));
  return data.valid.has_value() ? check(config.data.valid, *data.valid)
                                : absl::OkStatus();
}

std::string DatasetLine(const std::string& path, const Dataset& data) {
  std::string line = absl::StrCat(path, ": ", data.records.size(), " records");
  if (data.num_cut > 0) {
    absl::StrAppend(&line, ", ", data.num_cut, " cut to the row's length");
  }
  if (data.num_without_target > 0) {
    absl::StrAppend(&line, ", ", data.num_without_target,
                    " without a token to predict");
  }
  return line;
}

}  // namespace lorica
