// Arithmetic on tensors: each op checks its operands once, allocates its
// result and calls one entry of the device's backend. Formulas and meanings
// are those of runtime/backend.h. An op never asks which device it runs on.
//
// `room`: columns beside the result for what a linear layer puts beside its
// operands, see LoraForward and Tensor::spare_cols.
#ifndef LORICA_RUNTIME_OPS_H_
#define LORICA_RUNTIME_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/backend.h"
#include "runtime/tensor.h"

namespace lorica::ops {

void Fill(float value, Tensor* y);
// `x` in another type, times `scale`.
Tensor Convert(const Tensor& x, DType dtype, float scale = 1.0f);
void ConvertInto(const Tensor& x, float scale, Tensor* y);
void AddInto(const Tensor& x, Tensor* y);

// `to` = scale times the elements of a flat tensor from `begin` on.
struct Piece {
  int64_t begin = 0;
  float scale = 1.0f;
  Tensor to;
};
// Pieces that are copied again and again, as the device has them.
struct PieceTable {
  std::vector<Piece> pieces;  // Keep their memory.
  Tensor table;
};
// At least one; destinations of one device and type, of which no two overlap.
PieceTable MakePieceTable(std::vector<Piece> pieces);
// From `x` [N] F32, in which all of the pieces lie.
void ScatterPieces(const Tensor& x, const PieceTable& table);
// `norm` [1] F64 = the sum of squares of a dense F32 tensor.
void SquaredNorm(const Tensor& x, Tensor* norm);

Tensor MatmulNN(const Tensor& a, const Tensor& b);
Tensor MatmulNT(const Tensor& a, const Tensor& b);
Tensor MatmulTN(const Tensor& a, const Tensor& b);
// The general case, for what the three above do not name.
void Matmul(MatmulForm form, const Tensor& a, const Tensor& b, float scale,
            Update update, Tensor* y);

// A part of a frozen linear layer; see backend.h's LinearPart.
struct LinearPart {
  Tensor weight;
  Tensor bias;
  Tensor b;
  Tensor db;
  int64_t first_rank = 0;
  float scale = 1.0f;
};

// On devices of LinearLayout::kBordered several y lie side by side, with room
// for the dxa of gradients that take their place; xa lies beside x, and dxa
// beside dy, where there is room.
struct LoraForwardResult {
  std::vector<Tensor> y;  // One per part.
  Tensor xa;              // Absent if no part is adapted.
};
LoraForwardResult LoraForward(const Tensor& x, const Tensor& adapter_x,
                              const Tensor& a,
                              absl::Span<const LinearPart> parts);

// Which input gradients LoraBackward computes.
enum class InputGrad : uint8_t {
  kNone,      // Only da and db.
  kWhole,     // dx, the adapters' share included.
  kSeparate,  // dx of the frozen weight and, apart, that of the adapters.
};

struct LoraBackwardResult {
  Tensor dx;
  Tensor adapter_dx;  // With kSeparate.
};
LoraBackwardResult LoraBackward(absl::Span<const Tensor> dy,
                                const Tensor& adapter_x, const Tensor& xa,
                                const Tensor& a, Tensor* da,
                                absl::Span<const LinearPart> parts,
                                InputGrad input_grad);

struct RmsNormResult {
  Tensor sum;  // x + delta, or x itself where delta is absent.
  Tensor y;
  Tensor rstd;
};
RmsNormResult RmsNorm(const Tensor& x, const Tensor& delta,
                      const Tensor& weight, float epsilon, int64_t room = 0);
// dx += (or =) the input gradient.
void RmsNormBackward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& rstd, Update update, Tensor* dx);

struct LayerNormResult {
  Tensor sum;  // As RmsNorm's.
  Tensor y;
  Tensor mean;
  Tensor rstd;
};
LayerNormResult LayerNorm(const Tensor& x, const Tensor& delta,
                          const Tensor& weight, const Tensor& bias,
                          float epsilon, int64_t room = 0);
// dx += (or =) the input gradient.
void LayerNormBackward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                       const Tensor& mean, const Tensor& rstd, Update update,
                       Tensor* dx);

struct RopeTable {
  Tensor cos;  // [positions, head_dim / 2] F32
  Tensor sin;
};
void Rope(const RopeTable& table, const Tensor& positions, int64_t head_dim,
          Direction direction, Tensor* x);

Tensor Swiglu(const Tensor& gate, const Tensor& up, int64_t room = 0);
// Overwrites gate and up with their gradients.
void SwigluBackward(const Tensor& dy, Tensor* gate, Tensor* up);

Tensor Gelu(const Tensor& x, int64_t room = 0);
// Overwrites x with its gradient.
void GeluBackward(const Tensor& dy, Tensor* x);

struct AttentionShape {
  int64_t head_dim = 0;
  float scale = 1.0f;
};
struct AttentionResult {
  Tensor out;
  Tensor lse;
};
AttentionResult Attention(const Tensor& q, const Tensor& k, const Tensor& v,
                          absl::Span<const Segment> segments,
                          const AttentionShape& shape, int64_t room = 0);
// Of self-attention. On devices of LinearLayout::kBordered they lie side by
// side, with the room beside dv.
struct AttentionGrads {
  Tensor dq;
  Tensor dk;
  Tensor dv;
};
AttentionGrads AttentionBackward(const Tensor& dout, const Tensor& q,
                                 const Tensor& k, const Tensor& v,
                                 const AttentionResult& result,
                                 absl::Span<const Segment> segments,
                                 const AttentionShape& shape, int64_t room = 0);

// The same in one matrix [T, q + k + v] on every device, for a layer that
// computes q, k and v at once.
Tensor FusedAttentionBackward(const Tensor& dout, const Tensor& q,
                              const Tensor& k, const Tensor& v,
                              const AttentionResult& result,
                              absl::Span<const Segment> segments,
                              const AttentionShape& shape, int64_t room = 0);

// Either result has as much room beside it as what its rows are taken from.
Tensor GatherRows(const Tensor& table, const Tensor& ids, int64_t first_row);
// `rows` rows, zero but for y[ids[i]] = x[i].
Tensor ScatterRows(const Tensor& x, const Tensor& ids, int64_t rows);

struct DropoutMask {
  Tensor row_index;  // [T] I64
  RandomField field;
  int64_t row_elements = 0;
  int64_t first_col = 0;
  float p = 0.0f;
};
Tensor Dropout(const Tensor& x, const DropoutMask& mask);
// dx += the masked dy.
void DropoutBackward(const Tensor& dy, const DropoutMask& mask, Tensor* dx);

// This rank's rows of the output head.
struct HeadSlice {
  Tensor weight;  // [V, I]
  int64_t first_vocab = 0;
};
// What LogitGrad consumes; absent unless asked for.
struct KeptExps {
  Tensor exps;
  Tensor tile_max;
};
enum class KeepExps : uint8_t { kNo, kYes };
// Assigns `stats` [3, C] F32: maxima, sums, target logits.
KeptExps LogitStats(const Tensor& h, const HeadSlice& head,
                    const Tensor& targets, KeepExps keep, Tensor* stats);
// Assigns statistics over the whole vocabulary, of its slices' [3 n, C].
void MergeLogitStats(const Tensor& slices, Tensor* stats);
// Assigns `dh` [C, I], F32 or of the compute type. `kept` is LogitStats' and is
// consumed; `stats` are those of the whole vocabulary. `times` [1] F32
// multiplies the scale, where present.
void LogitGrad(const KeptExps& kept, const Tensor& stats, const HeadSlice& head,
               const Tensor& targets, float scale, const Tensor& times,
               Tensor* dh);

// A step of PyTorch's AdamW.
struct AdamWStep {
  float learning_rate = 0.0f;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0.0f;
  float grad_scale = 1.0f;  // Of the gradient, before all else (clipping).
  int64_t step = 1;         // Counts from 1.
};
AdamWNumbers NumbersOf(const AdamWStep& step);
// What tensors of AdamWNumbers are made of.
inline constexpr Shape kAdamWNumbersShape = {sizeof(AdamWNumbers) /
                                             sizeof(float)};
// `numbers` of that shape, F32; the others flat, dense and F32.
void AdamW(const Tensor& numbers, const Tensor& grad, Tensor* value, Tensor* m,
           Tensor* v);

}  // namespace lorica::ops

#endif  // LORICA_RUNTIME_OPS_H_
