#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

using reference::Absolute;
using reference::Columns;
using reference::Matmul;
using reference::Repeated;
using reference::Sum;

constexpr double kScale = 0.5;  // alpha / rank: b holds it, db is due it.

// How the operands lie: each by itself; parts side by side; or, besides, the
// adapter in the weights' border, xa beside x and dxa beside dy.
enum class Place : uint8_t { kApart, kStacked, kBordered };

// Columns beside a border: numbers that nobody may read.
constexpr int64_t kBeyond = 3;

// A frozen layer of several parts, some with an adapter.
struct LayerCase {
  std::string name;
  int64_t tokens;
  int64_t inputs;
  std::vector<int64_t> outputs;  // Of each part.
  std::vector<int64_t> ranks;    // Of each part; zero where frozen.
  DType dtype;
  bool dropout = false;  // The adapters see another input.
  bool input_grad = true;
  bool biased = false;
  Place place = Place::kApart;
};

struct HostLayer {
  HostMatrix x;
  HostMatrix adapter_x;
  HostMatrix a;  // Of no rows where nothing is adapted.
  std::vector<HostMatrix> weight;
  std::vector<HostMatrix> bias;  // [1, O]
  std::vector<HostMatrix> b;     // Of no columns where frozen.
  std::vector<HostMatrix> dy;
  std::vector<Range> ranks;  // Columns of xa of each part.
};

HostLayer LayerOf(const LayerCase& c) {
  HostLayer layer;
  layer.x = RandomMatrix("x", c.tokens, c.inputs, c.dtype);
  layer.adapter_x = c.dropout
                        ? RandomMatrix("dropped x", c.tokens, c.inputs, c.dtype)
                        : layer.x;
  int64_t stacked = 0;
  for (size_t p = 0; p < c.outputs.size(); ++p) {
    const std::string part = std::to_string(p);
    layer.weight.push_back(RandomMatrix(("weight" + part).c_str(), c.outputs[p],
                                        c.inputs, c.dtype));
    layer.bias.push_back(
        RandomMatrix(("bias" + part).c_str(), 1, c.outputs[p], c.dtype));
    layer.b.push_back(
        RandomMatrix(("b" + part).c_str(), c.outputs[p], c.ranks[p], c.dtype));
    layer.dy.push_back(
        RandomMatrix(("dy" + part).c_str(), c.tokens, c.outputs[p], c.dtype));
    layer.ranks.push_back({stacked, stacked + c.ranks[p]});
    stacked += c.ranks[p];
  }
  layer.a = RandomMatrix("a", stacked, c.inputs, c.dtype);
  return layer;
}

// xa as the forward pass leaves it: rounded to the compute type.
HostMatrix RoundedXa(const LayerCase& c, const HostLayer& layer) {
  return RoundTo(c.dtype, Matmul(MatmulForm::kNT, layer.adapter_x, layer.a));
}

struct DeviceLayer {
  Tensor x;
  Tensor adapter_x;
  Tensor a;
  Tensor xa;                 // Room.
  Tensor dxa;                // Room.
  std::vector<Tensor> held;  // What the parts' views point to.
  std::vector<LinearPart> parts;
};

// The rows of each part in the weights, or columns in y, of all parts.
std::vector<Range> OutputsOf(const LayerCase& c) {
  std::vector<Range> outputs;
  for (const int64_t n : c.outputs) {
    const int64_t first = outputs.empty() ? 0 : outputs.back().end;
    outputs.push_back({first, first + n});
  }
  return outputs;
}

// [[W, B], [A, unreadable]].
Tensor UploadBordered(const LayerCase& c, const HostLayer& layer,
                      Device* device) {
  const std::vector<Range> outputs = OutputsOf(c);
  const int64_t ranks = layer.a.rows;
  HostMatrix m =
      Unreadable(outputs.back().end + ranks, c.inputs + ranks + kBeyond);
  Put(HostMatrix(outputs.back().end, ranks), 0, c.inputs, &m);
  for (size_t p = 0; p < outputs.size(); ++p) {
    Put(layer.weight[p], outputs[p].begin, 0, &m);
    Put(layer.b[p], outputs[p].begin, c.inputs + layer.ranks[p].begin, &m);
  }
  Put(layer.a, outputs.back().end, 0, &m);
  return Upload(device, m, c.dtype);
}

// A matrix with unreadable columns beside it.
Tensor UploadWithRoom(const HostMatrix& matrix, int64_t room, DType dtype,
                      Device* device) {
  HostMatrix whole = Unreadable(matrix.rows, matrix.cols + room);
  Put(matrix, 0, 0, &whole);
  return Upload(device, whole, dtype);
}

DeviceLayer Upload(const LayerCase& c, const HostLayer& layer, Device* device) {
  DeviceLayer on;
  const int64_t ranks = layer.a.rows;
  const Range inputs = {0, c.inputs};
  const std::vector<Range> outputs = OutputsOf(c);
  Tensor whole;  // Of the weights.
  Tensor biases;
  if (c.place == Place::kApart) {
    on.x = Upload(device, layer.x, c.dtype);
  } else {
    const Tensor x = UploadWithRoom(layer.x, ranks + kBeyond, c.dtype, device);
    on.x = x.Cols(inputs);
    if (c.place == Place::kBordered && ranks > 0) {
      on.xa = x.Cols({c.inputs, c.inputs + ranks});
    }
    whole = UploadBordered(c, layer, device);
    HostMatrix stacked(1, outputs.back().end);
    for (size_t p = 0; p < outputs.size(); ++p) {
      Put(layer.bias[p], 0, outputs[p].begin, &stacked);
    }
    biases = Upload(device, stacked, c.dtype);
  }
  on.adapter_x = Upload(device, layer.adapter_x, c.dtype);
  if (ranks > 0) {
    on.a = c.place == Place::kBordered
               ? whole.Rows({outputs.back().end, outputs.back().end + ranks})
                     .Cols(inputs)
               : Upload(device, layer.a, c.dtype);
    if (!on.xa.present()) on.xa = Room(device, c.tokens, ranks, c.dtype);
    on.dxa = Room(device, c.tokens, ranks, c.dtype);
  }
  for (size_t p = 0; p < c.outputs.size(); ++p) {
    LinearPart part = {.first_rank = layer.ranks[p].begin,
                       .scale = static_cast<float>(kScale)};
    const Tensor rows = whole.present() ? whole.Rows(outputs[p]) : Tensor();
    on.held.push_back(whole.present()
                          ? rows.Cols(inputs)
                          : Upload(device, layer.weight[p], c.dtype));
    part.weight = on.held.back().view();
    if (c.biased) {
      on.held.push_back(biases.present()
                            ? biases.Cols(outputs[p])
                            : Upload(device, layer.bias[p], c.dtype));
      part.bias = on.held.back().view();
    }
    if (c.ranks[p] > 0) {
      const int64_t col = c.inputs + layer.ranks[p].begin;
      on.held.push_back(c.place == Place::kBordered
                            ? rows.Cols({col, col + c.ranks[p]})
                            : Upload(device, layer.b[p], c.dtype));
      part.b = on.held.back().view();
    }
    on.parts.push_back(part);
  }
  return on;
}

// Room for y, or dy, of each part.
std::vector<Tensor> OutputRoom(const LayerCase& c, Device* device) {
  std::vector<Tensor> y;
  const std::vector<Range> outputs = OutputsOf(c);
  Tensor whole;
  if (c.place != Place::kApart) {
    whole = Room(device, c.tokens, outputs.back().end + kBeyond, c.dtype);
  }
  for (size_t p = 0; p < outputs.size(); ++p) {
    y.push_back(whole.present()
                    ? whole.Cols(outputs[p])
                    : Room(device, c.tokens, c.outputs[p], c.dtype,
                           p % 2 == 0 ? Layout2d::kDense : Layout2d::kStrided));
  }
  return y;
}

// dy of each part; where it is bordered, dxa beside the last.
std::vector<Tensor> UploadGrads(const LayerCase& c, const HostLayer& layer,
                                Device* device, Tensor* dxa) {
  std::vector<Tensor> dy;
  const std::vector<Range> outputs = OutputsOf(c);
  const int64_t ranks = layer.a.rows;
  Tensor whole;
  if (c.place != Place::kApart) {
    HostMatrix side_by_side(c.tokens, outputs.back().end);
    for (size_t p = 0; p < outputs.size(); ++p) {
      Put(layer.dy[p], 0, outputs[p].begin, &side_by_side);
    }
    whole = UploadWithRoom(side_by_side, ranks + kBeyond, c.dtype, device);
  }
  if (c.place == Place::kBordered && ranks > 0) {
    *dxa = whole.Cols({outputs.back().end, outputs.back().end + ranks});
  }
  for (size_t p = 0; p < outputs.size(); ++p) {
    dy.push_back(whole.present() ? whole.Cols(outputs[p])
                                 : Upload(device, layer.dy[p], c.dtype,
                                          p % 2 == 0 ? Layout2d::kDense
                                                     : Layout2d::kStrided));
  }
  return dy;
}

PreparedOp PrepareForward(const LayerCase& c, Device* device) {
  const HostLayer layer = LayerOf(c);
  auto on = std::make_shared<DeviceLayer>(Upload(c, layer, device));
  PreparedOp op;
  if (on->a.present()) op.results.push_back({"xa", on->xa});
  const std::vector<Tensor> y = OutputRoom(c, device);
  for (size_t p = 0; p < c.outputs.size(); ++p) {
    on->parts[p].y = y[p].view();
    op.results.push_back({"y" + std::to_string(p), y[p]});
  }
  op.run = [=] {
    device->backend().lora_forward(
        device->queue(),
        {.x = on->x.view(),
         .adapter_x = on->adapter_x.view(),
         .a = on->a.view(),
         .xa = on->xa.view(),
         .parts = {on->parts.data(), static_cast<int64_t>(on->parts.size())}});
  };
  return op;
}

// The adapter's share is a product of xa rounded, and added to y rounded.
std::vector<OpExpectation> ExpectForward(const LayerCase& c) {
  const HostLayer layer = LayerOf(c);
  std::vector<OpExpectation> results;
  const HostMatrix xa = Matmul(MatmulForm::kNT, layer.adapter_x, layer.a);
  const HostMatrix xa_terms =
      Matmul(MatmulForm::kNT, Absolute(layer.adapter_x), Absolute(layer.a));
  if (layer.a.rows > 0) {
    results.push_back(
        Expect("xa", xa, {.result = c.dtype, .length = c.inputs}, xa_terms));
  }
  for (size_t p = 0; p < c.outputs.size(); ++p) {
    HostMatrix base = Matmul(MatmulForm::kNT, layer.x, layer.weight[p]);
    HostMatrix base_terms =
        Matmul(MatmulForm::kNT, Absolute(layer.x), Absolute(layer.weight[p]));
    if (c.biased) {
      const HostMatrix bias = Repeated(layer.bias[p], c.tokens);
      base = Sum(base, bias);
      base_terms = Sum(base_terms, Absolute(bias));
    }
    const HostMatrix b_abs = Absolute(layer.b[p]);
    const HostMatrix part_xa = Columns(xa, layer.ranks[p]);
    const HostMatrix share = Matmul(MatmulForm::kNT, part_xa, layer.b[p]);
    results.push_back(Expect(
        "y" + std::to_string(p), Sum(base, share),
        {.intermediate = c.dtype,
         .result = c.dtype,
         .length = c.inputs + c.ranks[p] + 1},
        Sum(Absolute(base), Matmul(MatmulForm::kNT, Absolute(part_xa), b_abs)),
        Sum(base_terms, Matmul(MatmulForm::kNT,
                               Columns(xa_terms, layer.ranks[p]), b_abs))));
  }
  return results;
}

PreparedOp PrepareBackward(const LayerCase& c, Device* device) {
  const HostLayer layer = LayerOf(c);
  auto on = std::make_shared<DeviceLayer>(Upload(c, layer, device));
  PreparedOp op;
  Tensor xa, da, dx, adapter_dx;
  const std::vector<Tensor> dy = UploadGrads(c, layer, device, &on->dxa);
  for (size_t p = 0; p < c.outputs.size(); ++p) {
    on->held.push_back(dy[p]);
    on->parts[p].y = dy[p].view();
    if (c.ranks[p] == 0) continue;
    const Tensor db = Upload(
        device, RandomMatrix("db", c.outputs[p], c.ranks[p], DType::kF32),
        DType::kF32);
    on->parts[p].db = db.view();
    op.results.push_back({"db" + std::to_string(p), db});
  }
  if (on->a.present()) {
    const int64_t stacked = layer.a.rows;
    xa = Upload(device, RoundedXa(c, layer), c.dtype);
    da = Upload(device, RandomMatrix("da", stacked, c.inputs, DType::kF32),
                DType::kF32);
    op.results.push_back({"da", da});
  }
  if (c.input_grad) {
    dx = Room(device, c.tokens, c.inputs, c.dtype);
    op.results.push_back({"dx", dx});
    if (c.dropout && on->a.present()) {
      adapter_dx = Room(device, c.tokens, c.inputs, c.dtype);
      op.results.push_back({"adapter_dx", adapter_dx});
    }
  }
  op.run = [=] {
    device->backend().lora_backward(
        device->queue(),
        {.adapter_x = on->adapter_x.view(),
         .xa = xa.view(),
         .a = on->a.view(),
         .da = da.view(),
         .dxa = on->dxa.view(),
         .dx = dx.view(),
         .adapter_dx = adapter_dx.view(),
         .parts = {on->parts.data(), static_cast<int64_t>(on->parts.size())}});
  };
  return op;
}

// The gradients by the formulas, of true values or of magnitudes.
struct LayerGrads {
  std::vector<HostMatrix> db;
  HostMatrix da;
  HostMatrix dx;  // Of the frozen weights.
  HostMatrix adapter_dx;
};

LayerGrads GradsOf(const LayerCase& c, const HostLayer& layer,
                   const HostMatrix& xa) {
  LayerGrads grads = {.dx = HostMatrix(c.tokens, c.inputs)};
  HostMatrix dxa(c.tokens, layer.a.rows);
  for (size_t p = 0; p < c.outputs.size(); ++p) {
    const HostMatrix& dy = layer.dy[p];
    grads.dx = Sum(grads.dx, Matmul(MatmulForm::kNN, dy, layer.weight[p]));
    const HostMatrix part = Matmul(MatmulForm::kNN, dy, layer.b[p]);
    for (int64_t r = 0; r < part.rows; ++r) {
      for (int64_t col = 0; col < part.cols; ++col) {
        dxa(r, layer.ranks[p].begin + col) = part(r, col);
      }
    }
    grads.db.push_back(Scaled(
        Matmul(MatmulForm::kTN, dy, Columns(xa, layer.ranks[p])), kScale));
  }
  grads.da = Matmul(MatmulForm::kTN, dxa, layer.adapter_x);
  grads.adapter_dx = Matmul(MatmulForm::kNN, dxa, layer.a);
  return grads;
}

HostLayer Absolute(HostLayer layer) {
  for (HostMatrix* m : {&layer.x, &layer.adapter_x, &layer.a}) {
    *m = Absolute(*m);
  }
  for (std::vector<HostMatrix>* list : {&layer.weight, &layer.b, &layer.dy}) {
    for (HostMatrix& m : *list) m = Absolute(m);
  }
  return layer;
}

// dxa is rounded to the compute type before da and the adapters' dx use it.
std::vector<OpExpectation> ExpectBackward(const LayerCase& c) {
  const HostLayer layer = LayerOf(c);
  const HostMatrix xa = RoundedXa(c, layer);
  const LayerGrads grads = GradsOf(c, layer, xa);
  const LayerGrads terms = GradsOf(c, Absolute(layer), Absolute(xa));
  int64_t outputs = 0;
  for (const int64_t n : c.outputs) outputs += n;
  std::vector<OpExpectation> results;
  for (size_t p = 0; p < c.outputs.size(); ++p) {
    if (c.ranks[p] == 0) continue;
    const HostMatrix before =
        RandomMatrix("db", c.outputs[p], c.ranks[p], DType::kF32);
    results.push_back(Expect("db" + std::to_string(p), Sum(before, grads.db[p]),
                             {.length = c.tokens + 1},
                             Sum(Absolute(before), terms.db[p])));
  }
  if (layer.a.rows > 0) {
    const HostMatrix before =
        RandomMatrix("da", layer.a.rows, c.inputs, DType::kF32);
    results.push_back(
        Expect("da", Sum(before, grads.da),
               {.intermediate = c.dtype, .length = c.tokens + outputs},
               Sum(Absolute(before), terms.da)));
  }
  if (!c.input_grad) return results;
  const Bound bound = {.intermediate = c.dtype,
                       .result = c.dtype,
                       .length = outputs + layer.a.rows};
  if (c.dropout && layer.a.rows > 0) {
    results.push_back(Expect("dx", grads.dx, bound, terms.dx));
    results.push_back(
        Expect("adapter_dx", grads.adapter_dx, bound, terms.adapter_dx));
  } else {
    results.push_back(Expect("dx", Sum(grads.dx, grads.adapter_dx), bound,
                             Sum(terms.dx, terms.adapter_dx)));
  }
  return results;
}

void AddLayer(const LayerCase& c, OpCaseList* list) {
  list->push_back(
      {.entry = "lora_forward",
       .name = c.name + WordOf(c.dtype),
       .prepare = [c](Device* device) { return PrepareForward(c, device); },
       .expect = [c] { return ExpectForward(c); }});
  list->push_back(
      {.entry = "lora_backward",
       .name = c.name + WordOf(c.dtype),
       .prepare = [c](Device* device) { return PrepareBackward(c, device); },
       .expect = [c] { return ExpectBackward(c); }});
}

}  // namespace

void AddLoraCases(OpCaseList* list) {
  for (const DType dtype : kComputeTypes) {
    // Wider than what a table may take for a product of low rank.
    const LayerCase wide = {.tokens = 21,
                            .inputs = 40,
                            .outputs = {72, 8, 16},
                            .ranks = {4, 0, 4},
                            .dtype = dtype};
    for (const Place place : {Place::kStacked, Place::kBordered}) {
      const std::string word =
          place == Place::kStacked ? "Stacked" : "Bordered";
      LayerCase c = wide;
      c.place = place;
      c.name = "Qkv" + word;
      AddLayer(c, list);
      c.biased = true;
      c.name = "BiasedQkv" + word;
      AddLayer(c, list);
      c.biased = false;
      c.name = "DropoutQkv" + word;
      c.dropout = true;
      AddLayer(c, list);
    }
    LayerCase one = wide;
    one.place = Place::kBordered;
    one.outputs = {80};
    one.ranks = {8};
    one.name = "OnePartBordered";
    AddLayer(one, list);
    one.tokens = 1;
    one.name = "OneTokenBordered";
    AddLayer(one, list);
    LayerCase frozen = wide;
    frozen.place = Place::kStacked;
    frozen.ranks = {0, 0, 0};
    frozen.name = "FrozenStacked";
    AddLayer(frozen, list);
    AddLayer({.name = "QkvOnTwo",
              .tokens = 33,
              .inputs = 40,
              .outputs = {24, 8, 16},
              .ranks = {4, 0, 3},
              .dtype = dtype},
             list);
    AddLayer({.name = "OnePart",
              .tokens = 19,
              .inputs = 32,
              .outputs = {48},
              .ranks = {8},
              .dtype = dtype},
             list);
    AddLayer({.name = "Frozen",
              .tokens = 16,
              .inputs = 24,
              .outputs = {16, 16},
              .ranks = {0, 0},
              .dtype = dtype},
             list);
    AddLayer({.name = "BiasedQkvOnTwo",
              .tokens = 33,
              .inputs = 40,
              .outputs = {24, 8, 16},
              .ranks = {4, 0, 3},
              .dtype = dtype,
              .biased = true},
             list);
    AddLayer({.name = "OneBiasedToken",
              .tokens = 1,
              .inputs = 40,
              .outputs = {24, 8},
              .ranks = {4, 0},
              .dtype = dtype,
              .biased = true},
             list);
    AddLayer({.name = "Dropout",
              .tokens = 21,
              .inputs = 24,
              .outputs = {16, 32},
              .ranks = {2, 5},
              .dtype = dtype,
              .dropout = true},
             list);
    AddLayer({.name = "NoInputGrad",
              .tokens = 12,
              .inputs = 16,
              .outputs = {24},
              .ranks = {4},
              .dtype = dtype,
              .input_grad = false},
             list);
    AddLayer({.name = "OneToken",
              .tokens = 1,
              .inputs = 40,
              .outputs = {24, 8},
              .ranks = {4, 4},
              .dtype = dtype},
             list);
  }
}

}  // namespace lorica
