#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/lora_layer.h"
#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

using reference::Absolute;
using reference::Columns;
using reference::Matmul;
using reference::Repeated;
using reference::Sum;

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
    HostMatrix all(c.tokens, layer.a.rows + c.spare);
    HostMatrix all_terms = all;
    Put(xa, 0, 0, &all);
    Put(xa_terms, 0, 0, &all_terms);
    results.push_back(
        Expect("xa", all, {.result = c.dtype, .length = c.inputs}, all_terms));
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

// Adapters whose ranks are no multiple of kRankUnit, with and without the spare
// ones that make them one.
void AddOddRanks(DType dtype, OpCaseList* list) {
  LayerCase c = {.name = "OddRanksQkvBordered",
                 .tokens = 21,
                 .inputs = 40,
                 .outputs = {72, 8, 16},
                 .ranks = {2, 4, 1},
                 .dtype = dtype,
                 .place = Place::kBordered};
  AddLayer(c, list);
  c.spare = 1;
  c.name = "SpareQkvBordered";
  AddLayer(c, list);
  c.biased = true;
  c.name = "SpareBiasedQkvBordered";
  AddLayer(c, list);
  c.dropout = true;
  c.name = "SpareBiasedDropoutQkvBordered";
  AddLayer(c, list);
  c.place = Place::kApart;
  c.name = "SpareBiasedDropoutQkv";
  AddLayer(c, list);
  c.biased = c.dropout = false;
  c.name = "SpareQkv";
  AddLayer(c, list);
  c.place = Place::kBordered;
  c.ranks = {4, 3, 0};
  c.name = "SpareBeforeAFrozenPart";
  AddLayer(c, list);
  c.outputs = {80};
  c.ranks = {3};
  c.spare = 5;
  c.name = "SpareOfRank3";
  AddLayer(c, list);
  c.ranks = {12};
  c.spare = 4;
  c.name = "SpareOfRank12";
  AddLayer(c, list);
  c.tokens = 1;
  c.name = "SpareOfOneToken";
  AddLayer(c, list);
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
    AddOddRanks(dtype, list);
  }
}

}  // namespace lorica
