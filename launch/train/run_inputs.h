// What a training run reads beside the model: the adapter's start and the data.
#ifndef LORICA_LAUNCH_TRAIN_RUN_INPUTS_H_
#define LORICA_LAUNCH_TRAIN_RUN_INPUTS_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "launch/config/run_config.h"
#include "model/lora_config.h"
#include "model/peft_adapter.h"
#include "model/text/data_order.h"
#include "model/text/dataset.h"

namespace lorica {

// The adapter's start: a PEFT directory, or none and its configuration.
struct AdapterSource {
  LoraConfig lora;
  std::optional<PeftAdapter> peft;
};

// Error: adapter.init_from cannot be read, or disagrees with what the options
// give beside it, by field.
absl::StatusOr<AdapterSource> OpenAdapterSource(const AdapterOptions& options);

struct RunData {
  Dataset train;
  DataOrder order;
  std::optional<Dataset> valid;
  std::string train_checksum;  // Of the file's bytes.
};

// Errors name the field and the file.
absl::StatusOr<RunData> LoadData(const RunConfig& config);

// That every record has a position for each of its tokens. Error: names the
// field and the record.
absl::Status CheckPositions(const RunConfig& config, const RunData& data,
                            int64_t positions);

// "train.jsonl: 96 records, 2 cut to the row's length".
std::string DatasetLine(const std::string& path, const Dataset& data);

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_RUN_INPUTS_H_
