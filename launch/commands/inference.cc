#include "launch/commands/inference.h"

#include <string>
#include <utility>

#include "launch/config/field_error.h"
#include "model/peft_adapter.h"
#include "model/text/load_tokenizer.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::StatusOr<std::unique_ptr<Session>> OpenTensorSession(
    const MpiEnvironment& mpi) {
  const int ranks = mpi.World(HostPath::kMessages)->size();
  return Session::Open(mpi, {.data = 1, .tensor = ranks},
                       {.kind = DeviceKind::kAuto}, /*threads=*/0);
}

absl::StatusOr<std::unique_ptr<Adapter>> OpenAdapter(
    const std::string& directory, const BaseModel& base, DType dtype,
    const Session& session) {
  if (directory.empty()) return nullptr;
  LORICA_ASSIGN_OR_RETURN(const PeftAdapter peft,
                          AgreeOn(Of("--adapter", ReadPeftAdapter(directory)),
                                  session.mesh().world()));
  return LoadAdapter(base, peft, directory, dtype, session);
}

}  // namespace

std::vector<Flag> InferenceFlags() {
  return {{.name = "model",
           .value_name = "PATH",
           .presence = Presence::kRequired,
           .help = "a Hugging Face directory or a GGUF file"},
          {.name = "adapter",
           .value_name = "DIR",
           .help = "a PEFT directory; without it the base model runs"},
          {.name = "dtype",
           .value_name = "f32|bf16",
           .kind = FlagKind::kChoice,
           .default_value = "bf16",
           .help = "what weights and activations are held in"}};
}

absl::StatusOr<Inference> OpenInference(const Arguments& arguments,
                                        const MpiEnvironment& mpi) {
  const std::string& path = arguments.Text("model");
  const DType dtype =
      arguments.Text("dtype") == "f32" ? DType::kF32 : DType::kBF16;
  LORICA_ASSIGN_OR_RETURN(std::unique_ptr<Session> session,
                          OpenTensorSession(mpi));
  LORICA_ASSIGN_OR_RETURN(BaseModel base,
                          Of("--model", OpenBaseModel(path, *session)));
  LORICA_ASSIGN_OR_RETURN(
      Tokenizer tokenizer,
      AgreeOn(Of("--model", LoadTokenizer(path)), session->mesh().world()));
  LORICA_ASSIGN_OR_RETURN(
      std::unique_ptr<Adapter> adapter,
      OpenAdapter(arguments.Text("adapter"), base, dtype, *session));
  return Inference{std::move(session), std::move(base), std::move(tokenizer),
                   dtype, std::move(adapter)};
}

}  // namespace lorica
