// The shape and names of Llama, and of Qwen 2, which is a Llama whose q, k and
// v have biases, in the files of others: config.json, GGUF.
#ifndef LORICA_MODEL_FAMILIES_LLAMA_H_
#define LORICA_MODEL_FAMILIES_LLAMA_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/families/stored_weight.h"
#include "model/gpt_config.h"
#include "runtime/files/gguf.h"
#include "runtime/files/json.h"

namespace lorica {

// From a config.json as transformers 4 or 5 writes it; `place` is its path.
// What the model cannot express is refused by key and value: other
// architectures, biases, activations, sliding windows, kinds of rope.
absl::StatusOr<GptConfig> LlamaFromJson(const Json& config,
                                        const std::string& place);

// From the keys and the tensor shapes of a GGUF of architecture "llama" or
// "qwen2", with the same refusals.
absl::StatusOr<GptConfig> LlamaFromGguf(const GgufFile& file);

// The tensors of the GGUF by their Hugging Face names. An error names a tensor
// that has none.
absl::StatusOr<StoredWeights> LlamaWeightsOfGguf(const GgufFile& file,
                                                 const GptConfig& config);

// The reverse: "blk.3.attn_q.weight" of
// "model.layers.3.self_attn.q_proj.weight", or "" where a GGUF has no such
// tensor.
std::string LlamaNameInGguf(absl::string_view name);
// "llama" or "qwen2", or "" of other families; and a key that begins with it:
// "llama.block_count".
std::string ArchitectureInGguf(const GptConfig& config);
std::string LlamaKeyInGguf(const GptConfig& config, absl::string_view name);
// StoredWeight::interleaved_rows of the tensor of that Hugging Face name.
int64_t InterleavedRowsInGguf(absl::string_view name, const GptConfig& config);

}  // namespace lorica

#endif  // LORICA_MODEL_FAMILIES_LLAMA_H_
