// The shape and names of GPT-2 in the files of Hugging Face, and the names of
// what adapters sit on in GGUF.
#ifndef LORICA_MODEL_FAMILIES_GPT2_H_
#define LORICA_MODEL_FAMILIES_GPT2_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gpt_config.h"
#include "runtime/files/json.h"

namespace lorica {

// Whether a config.json is of this family: by its architecture, or by its
// model_type where it names none.
bool IsGpt2(const Json& config);

// From such a config.json; `place` is its path. What the model cannot express
// is refused by key and value: other activations, scaled attention, layers of
// cross attention.
absl::StatusOr<GptConfig> Gpt2FromJson(const Json& config,
                                       const std::string& place);

// The parameter's name of a tensor in the file: files of the bare model, as the
// hub's gpt2, have no "transformer." in front. "" for the masks that old
// releases saved.
std::string Gpt2NameOf(absl::string_view name);

// "blk.3.attn_qkv.weight" of "transformer.h.3.attn.c_attn.weight", or "" where
// an adapter has nothing to do with the parameter. A GGUF holds [O, I].
std::string Gpt2NameInGguf(absl::string_view name);
inline constexpr char kGpt2InGguf[] = "gpt2";  // general.architecture

}  // namespace lorica

#endif  // LORICA_MODEL_FAMILIES_GPT2_H_
