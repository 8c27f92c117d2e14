#include "launch/base_model.h"

#include <cstring>
#include <utility>

#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::StatusOr<BaseModel> OpenHere(const std::string& path,
                                   const Session& session) {
  LORICA_ASSIGN_OR_RETURN(WeightSource source, WeightSource::Open(path));
  LORICA_ASSIGN_OR_RETURN(
      ModelSplit split,
      SplitModel(source.config(), session.mesh().tensor().size()));
  return BaseModel{std::move(source), std::move(split)};
}

// This rank's slice of a factor, row-major.
std::vector<float> SliceValues(const Factor& factor,
                               const std::vector<float>& whole) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(factor.elements));
  for (int64_t r = factor.slice.rows.begin; r < factor.slice.rows.end; ++r) {
    const auto row = whole.begin() + r * factor.shape[1];
    values.insert(values.end(), row + factor.slice.cols.begin,
                  row + factor.slice.cols.end);
  }
  return values;
}

}  // namespace

absl::StatusOr<BaseModel> OpenBaseModel(const std::string& path,
                                        const Session& session) {
  absl::StatusOr<BaseModel> base = OpenHere(path, session);
  LORICA_RETURN_IF_ERROR(Agree(base.status(), session.mesh().world()));
  return base;
}

std::unique_ptr<Gpt> LoadGpt(const BaseModel& base, DType dtype,
                             const ModelPlan& plan, const Session& session,
                             Adapter* resident) {
  const auto load = [&](const ParamSpec& spec, const Slice& slice) {
    return base.source.Load(spec.name, slice,
                            spec.storage == Storage::kF32 ? DType::kF32 : dtype,
                            session.device());
  };
  return std::make_unique<Gpt>(base.source.config(), base.split, plan,
                               &session.mesh().tensor(), load, resident);
}

absl::StatusOr<std::unique_ptr<Adapter>> MakeAdapter(const BaseModel& base,
                                                     const LoraConfig& lora,
                                                     DType dtype,
                                                     const Session& session) {
  const GptConfig& config = base.source.config();
  absl::StatusOr<std::vector<LoraModule>> modules =
      ResolveTargets(config, base.split, lora);
  LORICA_RETURN_IF_ERROR(Agree(modules.status(), session.mesh().world()));
  return std::make_unique<Adapter>(session.device(), dtype, config.num_layers,
                                   *std::move(modules), lora.dropout,
                                   session.mesh().tensor().rank());
}

absl::StatusOr<std::unique_ptr<Adapter>> LoadAdapter(
    const BaseModel& base, const PeftAdapter& peft,
    const std::string& directory, DType dtype, const Session& session) {
  LORICA_ASSIGN_OR_RETURN(std::unique_ptr<Adapter> adapter,
                          MakeAdapter(base, peft.lora, dtype, session));
  LORICA_RETURN_IF_ERROR(
      Agree(CheckPeftAdapter(peft, adapter->modules(), directory),
            session.mesh().world()));
  for (const Factor& factor : adapter->factors()) {
    const PeftFactors& whole = peft.modules.at(factor.module);
    adapter->SetValue(
        factor, SliceValues(factor, factor.kind == Factor::Kind::kA ? whole.a
                                                                    : whole.b));
  }
  adapter->Refresh();
  return adapter;
}

PeftAdapter GatherAdapter(const Adapter& adapter, const LoraConfig& lora,
                          const std::string& base_model,
                          const Session& session) {
  Communicator& group = session.mesh().tensor();
  PeftAdapter peft = {.lora = lora, .base_model = base_model};
  peft.lora.fan_in_fan_out =
      adapter.modules()[0].linear.file_order == FileOrder::kTransposed;
  for (const Factor& factor : adapter.factors()) {
    const std::vector<float> mine = adapter.GetValue(factor);
    const std::vector<std::string> slices = group.AllGatherBytes(
        std::string(reinterpret_cast<const char*>(mine.data()),
                    mine.size() * sizeof(float)),
        Purpose::kCheckpoint);
    PeftFactors& factors = peft.modules[factor.module];
    std::vector<float>& whole =
        factor.kind == Factor::Kind::kA ? factors.a : factors.b;
    // The sections of one B meet here.
    whole.resize(static_cast<size_t>(factor.shape.elements()));
    for (int rank = 0; rank < group.size(); ++rank) {
      const Slice slice = SliceOf(factor.shard, factor.shape, rank);
      const char* from = slices[static_cast<size_t>(rank)].data();
      const size_t row_bytes =
          static_cast<size_t>(slice.cols.size()) * sizeof(float);
      for (int64_t r = slice.rows.begin; r < slice.rows.end; ++r) {
        std::memcpy(whole.data() + r * factor.shape[1] + slice.cols.begin, from,
                    row_bytes);
        from += row_bytes;
      }
    }
    if (factor.kind == Factor::Kind::kA) {
      factors.rank = factor.shape[0];
      factors.inputs = factor.shape[1];
    } else {
      factors.outputs = factor.shape[0];
    }
  }
  return peft;
}

}  // namespace lorica
