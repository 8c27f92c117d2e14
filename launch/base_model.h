// A base model opened on all ranks: its weights, split, and its tokenizer.
#ifndef LORICA_LAUNCH_BASE_MODEL_H_
#define LORICA_LAUNCH_BASE_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "launch/session.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "model/lora_config.h"
#include "model/params.h"
#include "model/peft_adapter.h"
#include "model/weight_source.h"

namespace lorica {

// The model file's headers, checked on every rank.
struct BaseModel {
  WeightSource source;
  ModelSplit split;  // Over the session's tensor group.
};

// Agreed on by all ranks, as everything here. Errors: what WeightSource::Open
// and SplitModel refuse.
absl::StatusOr<BaseModel> OpenBaseModel(const std::string& path,
                                        const Session& session);

// Reads this rank's slices. `resident`, if given, is multiplied together with
// the frozen weights where the device can; see Gpt.
std::unique_ptr<Gpt> LoadGpt(const BaseModel& base, DType dtype,
                             const ModelPlan& plan, const Session& session,
                             Adapter* resident = nullptr);

// An empty adapter for the modules that `lora` names. Errors: see
// ResolveTargets.
absl::StatusOr<std::unique_ptr<Adapter>> MakeAdapter(const BaseModel& base,
                                                     const LoraConfig& lora,
                                                     DType dtype,
                                                     const Session& session);

// What a PEFT directory holds, this rank's slices of it. Error: it does not fit
// the model; `directory` is named.
absl::StatusOr<std::unique_ptr<Adapter>> LoadAdapter(
    const BaseModel& base, const PeftAdapter& peft,
    const std::string& directory, DType dtype, const Session& session);

// The whole adapter, on every rank of the tensor group.
PeftAdapter GatherAdapter(const Adapter& adapter, const LoraConfig& lora,
                          const std::string& base_model,
                          const Session& session);

}  // namespace lorica

#endif  // LORICA_LAUNCH_BASE_MODEL_H_
