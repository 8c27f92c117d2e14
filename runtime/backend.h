// The seam: everything that differs between devices, one table per device.
//
// Activations are token-major matrices [T, features] of the compute type, F32
// or BF16; statistics, tables, parameters of the adapter and their gradients
// are F32. Products accumulate in F32 and round once on the way out. Matrices
// may have a row stride unless an entry says dense. Results are assigned
// except where an entry says added. Entries enqueue work and return; arguments
// were checked by runtime/ops.cc and are trusted. Every result is a function
// of the arguments and the device's thread count alone: no entry depends on
// timing.
#ifndef LORICA_RUNTIME_BACKEND_H_
#define LORICA_RUNTIME_BACKEND_H_

#include <cstddef>
#include <cstdint>

#include "runtime/random.h"
#include "runtime/shape.h"

namespace lorica {

// A borrowed array of plain records on the host, valid during the call.
template <typename T>
struct ArrayView {
  const T* data = nullptr;
  int64_t size = 0;

  const T* begin() const { return data; }
  const T* end() const { return data + size; }
  const T& operator[](int64_t i) const { return data[i]; }
};

enum class Update : uint8_t { kAssign, kAdd };

// to = scale times as many elements of a flat array from `begin` on, row after
// row.
struct FlatPiece {
  int64_t begin = 0;
  float scale = 1.0f;
  View to;
};

// Copies pieces of x to where they belong. Pieces of x may meet, their
// destinations may not.
struct ScatterPiecesArgs {
  View x;       // [N] F32, dense.
  View pieces;  // [P, sizeof(FlatPiece) / 8] I64, dense: FlatPiece records.
  DType dtype;  // Of every destination: F32 or BF16.
};

// How the operands of y = op(a) op(b) lie in memory. NT: b is [N, K], as a
// weight [O, I] is in x W'. TN: a is [K, M], as in the gradient dy' x.
enum class MatmulForm : uint8_t { kNN, kNT, kTN };

// y = scale * product, or y += scale * product. A bias, where there is one, is
// added to every row of y, with a scale of 1 and b of form NT.
struct MatmulArgs {
  MatmulForm form = MatmulForm::kNN;
  View a;
  View b;
  View y;     // Compute type or F32.
  View bias;  // [N] of the type of b and y, or absent.
  float scale = 1.0f;
  Update update = Update::kAssign;
};

// One output part of a frozen linear layer and what is adapted on it: a slice
// W [O, I] of the fused weight of an attention or MLP layer.
struct LinearPart {
  View weight;  // [O, I]
  View bias;    // [O] of the weight's type, frozen; absent: none.
  View y;       // [T, O]; in backward dy. May be strided.
  View b;       // [O, R], times the adapter's scale; absent if frozen.
  View db;      // [O, R] F32, added; backward only. Without the spare ranks.
  int64_t first_rank;  // First of this part's R columns in xa and rows in a.
  float scale;         // alpha / R, already in b and still due in db.
};

// For each part p: y_p = x W_p' + bias_p + xa_p b_p', with xa = adapter_x a'.
//
//   x [T, I]   a [S, I]   xa [T, S]   S: sum of the ranks of all parts
//
// The ranks of each part follow those of the part before, and all S have a
// part. The last of S may be spare, so that S is what the device multiplies
// best (a multiple of kRankUnit). To the products they are ranks of the last
// part that has a b: columns of that b and rows of a, all of them zero, which
// make zeros of xa and dxa. To the gradients they are none: db and da end
// before them.
//
// Operands may lie anywhere. A table of LinearLayout::kBordered multiplies
// those at once that lie side by side: in the same rows, each beginning in the
// column where the one before ends; or likewise in columns; biases one behind
// the other. Of two parts, with O the outputs of all:
//
//   [W_1  b_1   0 ]
//   [W_2   0   b_2] = M      [y_1 y_2] = [x xa] (M's first O rows)'
//   [ a           ]          dx = [dy_1 dy_2 dxa] (M's first I columns)
//
// So where every b_p lies in its part's rows, first_rank columns right of W_p,
// the rest of the S columns right of all W must be zero: it is multiplied as
// well. Nothing else beside operands is read, and nothing beside results is
// written.
struct LoraForwardArgs {
  View x;
  View adapter_x;  // What the adapters see: x, or x after dropout.
  View a;          // Absent if no part is adapted.
  View xa;         // Result, spare ranks included.
  ArrayView<LinearPart> parts;
};

// The gradients of LoraForward: dxa_p = dy_p b_p, da += dxa' adapter_x,
// db_p += scale dy_p' xa_p and dx = sum of dy_p W_p, plus dxa a. With dropout
// the last term goes to adapter_dx instead. An absent dx is not computed.
struct LoraBackwardArgs {
  View adapter_x;  // [T, I]
  View xa;         // [T, S]; spare ranks are not read.
  View a;          // [S, I]
  View da;         // [S, I] F32, added; without the spare ranks.
  View dxa;        // [T, S] result, for the backend's use.
  View dx;         // [T, I] of the compute type or F32.
  View adapter_dx;
  ArrayView<LinearPart> parts;  // y holds dy.
};

// sum = x + delta (where delta is present), y = sum * rstd * weight with
// rstd = 1 / sqrt(mean(sum^2) + epsilon). Zhang and Sennrich 2019.
struct RmsNormArgs {
  // Whether it is a norm of differences from the row's mean.
  static constexpr bool kCenters = false;
  View x;       // [T, H]
  View delta;   // [T, H], or absent: then sum is x and not written.
  View weight;  // [H] F32.
  View sum;     // [T, H] result; may be x itself.
  View y;       // [T, H] result.
  View rstd;    // [T] F32 result.
  float epsilon = 1e-5f;
};

// Adds the norm's input gradient to dx, or assigns it.
struct RmsNormBackwardArgs {
  static constexpr bool kCenters = false;
  View dy;      // [T, H] of the compute type or F32.
  View x;       // [T, H] the normalized sum.
  View weight;  // [H] F32.
  View rstd;    // [T] F32.
  View dx;      // [T, H]
  Update update = Update::kAdd;
};

// sum = x + delta (where delta is present), y = (sum - mean) * rstd * weight +
// bias with rstd = 1 / sqrt(mean((sum - mean)^2) + epsilon), row by row. The
// squares are those of differences from the mean: a mean far above the
// deviation costs rstd the digits that sum itself has lost to it, no more. Ba,
// Kiros and Hinton 2016.
struct LayerNormArgs {
  static constexpr bool kCenters = true;
  View x;       // [T, H]
  View delta;   // [T, H], or absent: then sum is x and not written.
  View weight;  // [H] F32.
  View bias;    // [H] F32.
  View sum;     // [T, H] result; may be x itself.
  View y;       // [T, H] result.
  View mean;    // [T] F32 result.
  View rstd;    // [T] F32 result.
  float epsilon = 1e-5f;
};

// Adds the norm's input gradient to dx, or assigns it. Weight and bias are
// frozen and have no gradient.
struct LayerNormBackwardArgs {
  static constexpr bool kCenters = true;
  View dy;      // [T, H] of the compute type or F32.
  View x;       // [T, H] the normalized sum.
  View weight;  // [H] F32.
  View mean;    // [T] F32.
  View rstd;    // [T] F32.
  View dx;      // [T, H]
  Update update = Update::kAdd;
};

enum class Direction : uint8_t { kForward, kBackward };

// Rotates each head of x in place: element j of the first half of a head pairs
// with element j of its second half. Backward rotates back. Su et al. 2021, in
// the pairing of Hugging Face's Llama.
struct RopeArgs {
  View x;          // [T, heads * head_dim]
  View cos;        // [positions, head_dim / 2] F32, dense.
  View sin;        // likewise
  View positions;  // [T] I32
  int64_t head_dim = 0;
  Direction direction = Direction::kForward;
};

// y = silu(gate) * up. Shazeer 2020.
struct SwigluArgs {
  View gate;  // [T, F]
  View up;    // [T, F]
  View y;     // [T, F] result.
};

struct SwigluBackwardArgs {
  View dy;     // [T, F]
  View gate;   // [T, F]
  View up;     // [T, F]
  View dgate;  // [T, F] result; may be gate.
  View dup;    // [T, F] result; may be up.
};

// y = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Hendrycks and Gimpel
// 2016, in the tanh form of GPT-2, Hugging Face's gelu_new.
struct GeluArgs {
  View x;  // [T, F]
  View y;  // [T, F] result.
};

struct GeluBackwardArgs {
  View dy;  // [T, F]
  View x;   // [T, F]
  View dx;  // [T, F] result; may be x.
};

// Rows that attend to each other: a record of a packed row, or one new token
// and its cache. Query i of n sees keys 0 .. num_keys - n + i.
struct Segment {
  int64_t first_query = 0;
  int64_t num_queries = 0;
  int64_t first_key = 0;
  int64_t num_keys = 0;
};

// Causal softmax(scale q k') v per head, without a [T, T] array. Query head h
// reads key/value head h / (heads / kv_heads). Rows of no segment yield zero.
struct AttentionArgs {
  View q;    // [T, heads * head_dim]
  View k;    // [K, kv_heads * head_dim]
  View v;    // [K, kv_heads * head_dim]
  View out;  // [T, heads * head_dim] result.
  View lse;  // [heads, T] F32 result: log of the sum of exp(scale q k').
  ArrayView<Segment> segments;
  int64_t head_dim = 0;
  float scale = 1.0f;
};

struct AttentionBackwardArgs {
  AttentionArgs forward;  // With out and lse as computed.
  View dout;              // [T, heads * head_dim]
  View dq;                // [T, heads * head_dim] result.
  View dk;                // [K, kv_heads * head_dim] result.
  View dv;                // [K, kv_heads * head_dim] result.
};

// y[i] = table[ids[i] - first_row] where that row exists, else zero.
struct GatherRowsArgs {
  View table;  // [N, H]
  View ids;    // [T] I32
  View y;      // [T, H] result.
  int64_t first_row = 0;
};

// y[ids[i]] = x[i], other rows zero. The ids differ from each other.
struct ScatterRowsArgs {
  View x;    // [C, H]
  View ids;  // [C] I32
  View y;    // [T, H] result.
};

// y = x / (1 - p) where the mask keeps an element, else zero. The mask of row t
// and column c is a function of the global element: word
// row_index[t] * row_elements + first_col + c of `field`, dropped if below
// p * 2^32. Backward is the same function of dy; kAdd adds to y.
struct DropoutArgs {
  View x;          // [T, I]
  View y;          // [T, I] result.
  View row_index;  // [T] I64: the row's number in the global batch.
  RandomField field;
  int64_t row_elements = 0;  // Columns of the whole, unsplit matrix.
  int64_t first_col = 0;     // Of this slice.
  float p = 0.0f;
  Update update = Update::kAssign;
};

// Softmax statistics of logits = h W' over this rank's vocabulary rows, without
// the logits: per row the maximum, the sum of exp(logit - maximum) and the
// target's logit (zero where another rank holds it). A negative target marks a
// row without loss.
struct LogitStatsArgs {
  View h;         // [C, I] dense.
  View weight;    // [V, I] dense.
  View targets;   // [C] I32, in the whole vocabulary.
  View stats;     // [3, C] F32 result: maxima, sums, target logits.
  View exps;      // [C, V] of the compute type, in the backend's own order:
                  // exp(logit - tile maximum). Absent where no gradient is due.
  View tile_max;  // [tiles, C] F32, beside exps. tiles = V / tile rounded up.
  int64_t first_vocab = 0;
  int64_t tile = 0;  // Vocabulary rows a tile.
};

// The statistics of rows over the whole vocabulary, of those of its slices: the
// largest maximum M, the sum of sum_s exp(max_s - M) over slices s, in F64 and
// in their order, rounded once, and the sum of the target logits, of which one
// at most is not zero.
struct MergeLogitStatsArgs {
  View slices;  // [3 n, C] F32: one slice's statistics under another's.
  View stats;   // [3, C] F32 result.
};

// dh = scale * (softmax - onehot(target)) W, this rank's term of it; zero in
// rows without loss. Consumes exps. `scale * times` is one F32 product.
struct LogitGradArgs {
  View exps;
  View tile_max;
  View stats;  // [3, C] F32 of the whole vocabulary.
  View targets;
  View weight;
  View dh;     // [C, I] F32 or compute type, result.
  View times;  // [1] F32, another factor of the scale; absent: 1.
  float scale = 1.0f;
  int64_t first_vocab = 0;
  int64_t tile = 0;
};

// What a step of AdamW takes beside its arrays. It lies on the device, so that
// a recorded step (runtime/recording.h) finds that of the day there.
struct AdamWNumbers {
  float grad_scale;  // Of the gradient, before all else (clipping).
  float beta1;
  float beta2;
  float epsilon;
  float rate;         // The learning rate / (1 - beta1^step).
  float root;         // 1 / sqrt(1 - beta2^step).
  float value_scale;  // 1 - the learning rate * the weight decay.
};

// One AdamW step over flat dense F32 arrays, PyTorch's arithmetic:
//
//   m += (1 - beta1) (g - m)      g = grad_scale grad
//   v = beta2 v + (1 - beta2) g^2
//   value = value_scale value - rate m / (root sqrt(v) + epsilon)
//
// Loshchilov and Hutter 2019.
struct AdamWArgs {
  View value;
  View grad;
  View m;
  View v;
  View numbers;  // [sizeof(AdamWNumbers) / 4] F32: one AdamWNumbers.
};

// An ordered stream of work on one device and the scratch memory that goes
// with it. Each backend derives its own; several may live in one program.
struct Queue {
 protected:
  Queue() = default;
  ~Queue() = default;
};

// A function a backend must provide. Having no default constructor, it makes
// an incomplete table a compile error.
template <typename Signature>
class Entry;

template <typename Result, typename... Args>
class Entry<Result(Args...)> {
 public:
  constexpr Entry(Result (*function)(Args...))  // NOLINT: meant to be implicit.
      : function_(function) {}
  Result operator()(Args... args) const { return function_(args...); }

 private:
  Result (*function_)(Args...);
};

// Makes entries of a backend's functions, which take its own kind of queue:
// .fill = OnQueue<cpu::Fill>::Call.
template <auto kFunction>
struct OnQueue;

template <typename Result, typename OwnQueue, typename... Args,
          Result (*kFunction)(OwnQueue*, Args...)>
struct OnQueue<kFunction> {
  static Result Call(Queue* queue, Args... args) {
    return kFunction(static_cast<OwnQueue*>(queue), args...);
  }
};

class Recorder;

// Where a device's arrays lie: what is in the host's memory, such as a mapped
// file, need not be copied to a device of kHost.
enum class Memory : uint8_t { kHost, kDevice };

// How the operands of a linear layer should lie: kApart, each dense and where
// it is; kBordered, parts side by side with the adapter in their border, see
// LoraForwardArgs.
enum class LinearLayout : uint8_t { kApart, kBordered };

// Ranks of a border are a multiple of these, the last of them spare: 16 bytes
// in BF16, which tensor cores load at once. The depth of a product with a
// border then is one if that of the frozen product is.
inline constexpr int64_t kRankUnit = 8;

// Whether a table does what its entries say. One of kNone computes nothing and
// its arrays lie nowhere, so that what some work asks for shows without the
// work (runtime/dry_run.h); collectives of such arrays move nothing and ask
// nobody.
enum class Effect : uint8_t { kAll, kNone };

struct Backend {
  const char* name;
  Effect effect = Effect::kAll;
  Memory memory = Memory::kHost;
  LinearLayout linear_layout = LinearLayout::kApart;
  // Tokens of one forward and backward pass at most, but for a longer record.
  int64_t pass_tokens = 0;
  // Rows that the head takes at a time, from their logits to their gradients.
  int64_t loss_rows = 0;
  // Vocabulary rows a tile for logit_stats and logit_grad.
  int64_t logit_tile = 0;

  Entry<void*(Queue*, size_t bytes)> allocate;  // Null when memory is out.
  Entry<void(Queue*, void* data, size_t bytes)> release;
  Entry<void(Queue*, void* dst, const void* host, size_t bytes)> copy_in;
  Entry<void(Queue*, void* host, const void* src, size_t bytes)> copy_out;
  Entry<void(Queue*)> synchronize;
  // Bytes that this process held of the device's memory at most so far; 0 where
  // that is the host's.
  Entry<int64_t(Queue*)> peak_memory;
  // Bytes that `allocate` could still give, though perhaps not in one piece; 0
  // where that is the host's.
  Entry<int64_t(Queue*)> free_memory;
  // See runtime/recording.h; null where the device does not record.
  Entry<Recorder*(Queue*)> recorder;

  Entry<void(Queue*, View y, float value)> fill;
  // y = scale * x, converting between F32 and BF16.
  Entry<void(Queue*, View x, float scale, View y)> convert;
  // The same for pieces of an array at once.
  Entry<void(Queue*, const ScatterPiecesArgs&)> scatter_pieces;
  // y += x; types may differ.
  Entry<void(Queue*, View x, View y)> add;
  // y [1] F64 = the sum of squares of a dense F32 array, in a fixed order.
  Entry<void(Queue*, View x, View y)> squared_norm;

  Entry<void(Queue*, const MatmulArgs&)> matmul;
  Entry<void(Queue*, const LoraForwardArgs&)> lora_forward;
  Entry<void(Queue*, const LoraBackwardArgs&)> lora_backward;
  Entry<void(Queue*, const RmsNormArgs&)> rms_norm;
  Entry<void(Queue*, const RmsNormBackwardArgs&)> rms_norm_backward;
  Entry<void(Queue*, const LayerNormArgs&)> layer_norm;
  Entry<void(Queue*, const LayerNormBackwardArgs&)> layer_norm_backward;
  Entry<void(Queue*, const RopeArgs&)> rope;
  Entry<void(Queue*, const SwigluArgs&)> swiglu;
  Entry<void(Queue*, const SwigluBackwardArgs&)> swiglu_backward;
  Entry<void(Queue*, const GeluArgs&)> gelu;
  Entry<void(Queue*, const GeluBackwardArgs&)> gelu_backward;
  Entry<void(Queue*, const AttentionArgs&)> attention;
  Entry<void(Queue*, const AttentionBackwardArgs&)> attention_backward;
  Entry<void(Queue*, const GatherRowsArgs&)> gather_rows;
  Entry<void(Queue*, const ScatterRowsArgs&)> scatter_rows;
  Entry<void(Queue*, const DropoutArgs&)> dropout;
  Entry<void(Queue*, const LogitStatsArgs&)> logit_stats;
  Entry<void(Queue*, const MergeLogitStatsArgs&)> merge_logit_stats;
  Entry<void(Queue*, const LogitGradArgs&)> logit_grad;
  Entry<void(Queue*, const AdamWArgs&)> adamw;
};

}  // namespace lorica

#endif  // LORICA_RUNTIME_BACKEND_H_
