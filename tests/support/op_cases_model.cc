#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

// The shapes of SmolLM2-135M.
constexpr int64_t kHidden = 576;
constexpr int64_t kHeads = 9;
constexpr int64_t kKvHeads = 3;
constexpr int64_t kHeadDim = 64;
constexpr int64_t kMlp = 1536;
constexpr int64_t kVocab = 49152;
constexpr int64_t kTokens = 2048;
constexpr int64_t kRank = 8;

// Values of no meaning, quickly made.
template <typename T>
Tensor NoiseAs(Device* device, int64_t rows, int64_t cols) {
  std::vector<T> values(static_cast<size_t>(rows * cols));
  uint32_t state = 1;
  for (T& value : values) {
    state = state * 1664525u + 1013904223u;
    value = T(static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
  }
  return Tensor::FromHost<T>(device, {rows, cols}, values);
}

Tensor Noise(Device* device, int64_t rows, int64_t cols, DType dtype) {
  return dtype == DType::kBF16 ? NoiseAs<BFloat16>(device, rows, cols)
                               : NoiseAs<float>(device, rows, cols);
}

double Bytes(int64_t elements, DType dtype) {
  return static_cast<double>(elements) * static_cast<double>(SizeOf(dtype));
}

// A weight against few rows, as in generation: bound by reading the weight.
// Several weights take turns so that none stays in the cache.
OpCase DecodeProduct(const char* name, int64_t m, int64_t n, int64_t k,
                     DType dtype) {
  const int64_t copies = std::max<int64_t>(1, (int64_t{96} << 20) / (n * k));
  return {.entry = "matmul",
          .name = std::string(name) + std::to_string(m) + WordOf(dtype),
          .flops = 2.0 * static_cast<double>(m * n * k * copies),
          .bytes = Bytes(n * k * copies, dtype),
          .prepare = [=](Device* device) {
            const Tensor a = Noise(device, m, k, dtype);
            const Tensor b = Noise(device, n * copies, k, dtype);
            const Tensor y = Noise(device, m, n, dtype);
            return PreparedOp{
                .run =
                    [=] {
                      for (int64_t i = 0; i < copies; ++i) {
                        device->backend().matmul(
                            device->queue(),
                            {.form = MatmulForm::kNT,
                             .a = a.view(),
                             .b = b.Rows({i * n, (i + 1) * n}).view(),
                             .y = y.view()});
                      }
                    },
                .results = {{"y", y}}};
          }};
}

struct Linear {
  const char* name;
  int64_t inputs;
  std::vector<int64_t> outputs;
  std::vector<int64_t> ranks;
};

struct LinearOperands {
  std::vector<Tensor> held;
  std::vector<LinearPart> parts;
  Tensor x, a, xa, dxa, da, dx;

  Tensor Hold(const Tensor& t) {
    held.push_back(t);
    return t;
  }
};

std::shared_ptr<LinearOperands> OperandsOf(const Linear& linear, DType dtype,
                                           Device* device) {
  auto on = std::make_shared<LinearOperands>();
  on->x = Noise(device, kTokens, linear.inputs, dtype);
  on->dx = Noise(device, kTokens, linear.inputs, dtype);
  int64_t stacked = 0;
  for (size_t p = 0; p < linear.outputs.size(); ++p) {
    const int64_t n = linear.outputs[p];
    LinearPart part = {
        .weight = on->Hold(Noise(device, n, linear.inputs, dtype)).view(),
        .y = on->Hold(Noise(device, kTokens, n, dtype)).view(),
        .first_rank = stacked,
        .scale = 2.0f};
    if (linear.ranks[p] > 0) {
      part.b = on->Hold(Noise(device, n, linear.ranks[p], dtype)).view();
      part.db = on->Hold(Noise(device, n, linear.ranks[p], DType::kF32)).view();
    }
    on->parts.push_back(part);
    stacked += linear.ranks[p];
  }
  if (stacked > 0) {
    on->a = Noise(device, stacked, linear.inputs, dtype);
    on->da = Noise(device, stacked, linear.inputs, DType::kF32);
    on->xa = Noise(device, kTokens, stacked, dtype);
    on->dxa = Noise(device, kTokens, stacked, dtype);
  }
  return on;
}

void AddLinear(const Linear& linear, DType dtype, OpCaseList* list) {
  int64_t outputs = 0;
  for (const int64_t n : linear.outputs) outputs += n;
  const double flops =
      2.0 * static_cast<double>(kTokens * outputs * linear.inputs);
  const std::string name = linear.name + WordOf(dtype);
  list->push_back(
      {.entry = "lora_forward",
       .name = name,
       .flops = flops,
       .prepare = [=](Device* device) {
         const auto on = OperandsOf(linear, dtype, device);
         return PreparedOp{
             .run =
                 [=] {
                   device->backend().lora_forward(
                       device->queue(),
                       {.x = on->x.view(),
                        .adapter_x = on->x.view(),
                        .a = on->a.view(),
                        .xa = on->xa.view(),
                        .parts = {on->parts.data(),
                                  static_cast<int64_t>(on->parts.size())}});
                 },
             .results = {}};
       }});
  list->push_back(
      {.entry = "lora_backward",
       .name = name,
       .flops = flops,
       .prepare = [=](Device* device) {
         const auto on = OperandsOf(linear, dtype, device);
         return PreparedOp{
             .run =
                 [=] {
                   device->backend().lora_backward(
                       device->queue(),
                       {.adapter_x = on->x.view(),
                        .xa = on->xa.view(),
                        .a = on->a.view(),
                        .da = on->da.view(),
                        .dxa = on->dxa.view(),
                        .dx = on->dx.view(),
                        .parts = {on->parts.data(),
                                  static_cast<int64_t>(on->parts.size())}});
                 },
             .results = {}};
       }});
}

// `count` records of `length` tokens with as many `earlier` keys each.
std::vector<Segment> Records(int64_t count, int64_t length, int64_t earlier) {
  std::vector<Segment> segments;
  for (int64_t i = 0; i < count; ++i) {
    segments.push_back(
        {i * length, length, i * (length + earlier), length + earlier});
  }
  return segments;
}

struct Attended {
  const char* name;
  int64_t records;
  int64_t length;
  int64_t earlier;
};

// Only the scores that are seen count as work.
void AddAttention(const Attended& c, DType dtype, OpCaseList* list) {
  const int64_t rows = c.records * c.length;
  const int64_t keys = c.records * (c.length + c.earlier);
  const int64_t scores =
      c.records * c.length * (2 * c.earlier + c.length + 1) / 2;
  const double product = 2.0 * static_cast<double>(scores * kHeads * kHeadDim);
  const auto operands = [=](Device* device) {
    auto on = std::make_shared<std::vector<Tensor>>();
    for (int i = 0; i < 2; ++i) {
      on->push_back(Noise(device, rows, kHeads * kHeadDim, dtype));
      on->push_back(Noise(device, keys, kKvHeads * kHeadDim, dtype));
      on->push_back(Noise(device, keys, kKvHeads * kHeadDim, dtype));
      on->push_back(Noise(device, rows, kHeads * kHeadDim, dtype));
      on->push_back(Noise(device, kHeads, rows, DType::kF32));
    }
    return on;
  };
  const auto segments = std::make_shared<std::vector<Segment>>(
      Records(c.records, c.length, c.earlier));
  const auto args = [=](const std::vector<Tensor>& on) {
    return AttentionArgs{
        .q = on[0].view(),
        .k = on[1].view(),
        .v = on[2].view(),
        .out = on[3].view(),
        .lse = on[4].view(),
        .segments = {segments->data(), static_cast<int64_t>(segments->size())},
        .head_dim = kHeadDim,
        .scale = 0.125f};
  };
  const std::string name = c.name + WordOf(dtype);
  list->push_back({.entry = "attention",
                   .name = name,
                   .flops = 2 * product,
                   .bytes = Bytes(2 * keys * kKvHeads * kHeadDim, dtype),
                   .prepare = [=](Device* device) {
                     const auto on = operands(device);
                     return PreparedOp{.run =
                                           [=] {
                                             device->backend().attention(
                                                 device->queue(), args(*on));
                                           },
                                       .results = {}};
                   }});
  if (c.length == 1) return;
  list->push_back({.entry = "attention_backward",
                   .name = name,
                   .flops = 5 * product,
                   .prepare = [=](Device* device) {
                     const auto on = operands(device);
                     return PreparedOp{
                         .run =
                             [=] {
                               device->backend().attention_backward(
                                   device->queue(), {.forward = args(*on),
                                                     .dout = (*on)[8].view(),
                                                     .dq = (*on)[5].view(),
                                                     .dk = (*on)[6].view(),
                                                     .dv = (*on)[7].view()});
                             },
                         .results = {}};
                   }});
}

// Operands of the same extent, so many of them, and a call on them.
OpCase RowCase(
    const char* entry, int64_t cols, int64_t operands, DType dtype,
    const std::function<void(Device*, const std::vector<Tensor>&)>& call) {
  return {.entry = entry,
          .name = WordOf(dtype),
          .bytes = Bytes(operands * kTokens * cols, dtype),
          .prepare = [=](Device* device) {
            auto on = std::make_shared<std::vector<Tensor>>();
            for (int64_t i = 0; i < operands; ++i) {
              on->push_back(Noise(device, kTokens, cols, dtype));
            }
            on->push_back(Noise(device, 1, cols, DType::kF32).Reshape({cols}));
            on->push_back(
                Noise(device, 1, kTokens, DType::kF32).Reshape({kTokens}));
            return PreparedOp{.run = [=] { call(device, *on); }, .results = {}};
          }};
}

void AddRowOps(DType dtype, OpCaseList* list) {
  list->push_back(RowCase("rms_norm", kHidden, 4, dtype,
                          [](Device* device, const std::vector<Tensor>& on) {
                            device->backend().rms_norm(device->queue(),
                                                       {.x = on[0].view(),
                                                        .delta = on[1].view(),
                                                        .weight = on[4].view(),
                                                        .sum = on[2].view(),
                                                        .y = on[3].view(),
                                                        .rstd = on[5].view()});
                          }));
  list->push_back(RowCase("rms_norm_backward", kHidden, 4, dtype,
                          [](Device* device, const std::vector<Tensor>& on) {
                            device->backend().rms_norm_backward(
                                device->queue(), {.dy = on[0].view(),
                                                  .x = on[1].view(),
                                                  .weight = on[4].view(),
                                                  .rstd = on[5].view(),
                                                  .dx = on[2].view()});
                          }));
  list->push_back(RowCase(
      "swiglu", kMlp, 3, dtype,
      [](Device* device, const std::vector<Tensor>& on) {
        device->backend().swiglu(
            device->queue(),
            {.gate = on[0].view(), .up = on[1].view(), .y = on[2].view()});
      }));
  list->push_back(RowCase("swiglu_backward", kMlp, 5, dtype,
                          [](Device* device, const std::vector<Tensor>& on) {
                            device->backend().swiglu_backward(
                                device->queue(), {.dy = on[0].view(),
                                                  .gate = on[1].view(),
                                                  .up = on[2].view(),
                                                  .dgate = on[3].view(),
                                                  .dup = on[4].view()});
                          }));
  list->push_back(RowCase("add", kHidden, 3, dtype,
                          [](Device* device, const std::vector<Tensor>& on) {
                            device->backend().add(device->queue(), on[0].view(),
                                                  on[1].view());
                          }));
}

OpCase DropoutOp(DType dtype) {
  return {.entry = "dropout",
          .name = WordOf(dtype),
          .bytes = Bytes(2 * kTokens * kHidden, dtype),
          .prepare = [=](Device* device) {
            const Tensor x = Noise(device, kTokens, kHidden, dtype);
            const Tensor y = Noise(device, kTokens, kHidden, dtype);
            std::vector<int64_t> rows;
            for (int64_t i = 0; i < kTokens; ++i) rows.push_back(i);
            const Tensor row_index = UploadLongs(device, rows);
            return PreparedOp{.run =
                                  [=] {
                                    device->backend().dropout(
                                        device->queue(),
                                        {.x = x.view(),
                                         .y = y.view(),
                                         .row_index = row_index.view(),
                                         .row_elements = kHidden,
                                         .p = 0.1f});
                                  },
                              .results = {}};
          }};
}

// Statistics and gradient of a chunk of rows, as a training step asks for them.
OpCase HeadOp(int64_t rows, DType dtype) {
  constexpr int64_t kVocabTile = 2048;
  return {.entry = "logit_grad",
          .name = "WithStats" + std::to_string(rows) + WordOf(dtype),
          .flops = 4.0 * static_cast<double>(rows * kHidden * kVocab),
          .prepare = [=](Device* device) {
            const Tensor h = Noise(device, rows, kHidden, dtype);
            const Tensor weight = Noise(device, kVocab, kHidden, dtype);
            const Tensor targets =
                UploadInts(device, RandomInts("targets", rows, {0, kVocab}));
            const Tensor stats = Noise(device, 3, rows, DType::kF32);
            const Tensor exps = Noise(device, rows, kVocab, dtype);
            const Tensor tile_max =
                Noise(device, kVocab / kVocabTile, rows, DType::kF32);
            const Tensor dh = Noise(device, rows, kHidden, DType::kF32);
            return PreparedOp{
                .run =
                    [=] {
                      device->backend().logit_stats(
                          device->queue(), {.h = h.view(),
                                            .weight = weight.view(),
                                            .targets = targets.view(),
                                            .stats = stats.view(),
                                            .exps = exps.view(),
                                            .tile_max = tile_max.view(),
                                            .tile = kVocabTile});
                      device->backend().logit_grad(device->queue(),
                                                   {.exps = exps.view(),
                                                    .tile_max = tile_max.view(),
                                                    .stats = stats.view(),
                                                    .targets = targets.view(),
                                                    .weight = weight.view(),
                                                    .dh = dh.view(),
                                                    .tile = kVocabTile});
                    },
                .results = {}};
          }};
}

}  // namespace

std::vector<OpCase> ModelSizeCases() {
  OpCaseList list;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    AddLinear({"Qkv",
               kHidden,
               {kHeads * kHeadDim, kKvHeads * kHeadDim, kKvHeads * kHeadDim},
               {kRank, 0, kRank}},
              dtype, &list);
    AddLinear({"Output", kHidden, {kHidden}, {0}}, dtype, &list);
    AddLinear({"GateUp", kHidden, {kMlp, kMlp}, {0, 0}}, dtype, &list);
    AddLinear({"Down", kMlp, {kHidden}, {0}}, dtype, &list);
    for (const int64_t m : {1, 4, 8}) {
      list.push_back(DecodeProduct("Few", m, kMlp, kHidden, dtype));
    }
    list.push_back(DecodeProduct("FewHead", 1, kVocab, kHidden, dtype));
    AddAttention({"FourOf512", 4, 512, 0}, dtype, &list);
    AddAttention({"OneOf2048", 1, 2048, 0}, dtype, &list);
    AddAttention({"RecordsOf75", 27, 75, 0}, dtype, &list);
    AddAttention({"Decode4096", 1, 1, 4095}, dtype, &list);
    AddRowOps(dtype, &list);
    list.push_back(DropoutOp(dtype));
    list.push_back(HeadOp(256, dtype));
  }
  return list;
}

}  // namespace lorica
