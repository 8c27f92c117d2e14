#include "tests/support/lora_layer.h"

#include <string>

namespace lorica {
namespace {

// Columns beside a border: numbers that nobody may read.
constexpr int64_t kBeyond = 3;

// The rows of each part in the weights, or columns in y, of all parts.
std::vector<Range> OutputsOf(const LayerCase& c) {
  std::vector<Range> outputs;
  for (const int64_t n : c.outputs) {
    const int64_t first = outputs.empty() ? 0 : outputs.back().end;
    outputs.push_back({first, first + n});
  }
  return outputs;
}

// S with the spare ones.
int64_t AllRanks(const LayerCase& c, const HostLayer& layer) {
  return layer.a.rows > 0 ? layer.a.rows + c.spare : int64_t{0};
}

// The ranks of an adapted part, with the spare ones if it is the last.
Range RanksOf(const LayerCase& c, const HostLayer& layer, size_t part) {
  Range ranks = layer.ranks[part];
  if (ranks.end == layer.a.rows) ranks.end += c.spare;
  return ranks;
}

// With zeros below and to the right.
HostMatrix Padded(const HostMatrix& matrix, int64_t rows, int64_t cols) {
  HostMatrix padded(rows, cols);
  Put(matrix, 0, 0, &padded);
  return padded;
}

// [[W, B], [A, unreadable]].
Tensor UploadBordered(const LayerCase& c, const HostLayer& layer,
                      Device* device) {
  const std::vector<Range> outputs = OutputsOf(c);
  const int64_t ranks = AllRanks(c, layer);
  HostMatrix m =
      Unreadable(outputs.back().end + ranks, c.inputs + ranks + kBeyond);
  Put(HostMatrix(outputs.back().end, ranks), 0, c.inputs, &m);
  for (size_t p = 0; p < outputs.size(); ++p) {
    Put(layer.weight[p], outputs[p].begin, 0, &m);
    Put(layer.b[p], outputs[p].begin, c.inputs + layer.ranks[p].begin, &m);
  }
  Put(Padded(layer.a, ranks, c.inputs), outputs.back().end, 0, &m);
  return Upload(device, m, c.dtype);
}

// A matrix with unreadable columns beside it.
Tensor UploadWithRoom(const HostMatrix& matrix, int64_t room, DType dtype,
                      Device* device) {
  HostMatrix whole = Unreadable(matrix.rows, matrix.cols + room);
  Put(matrix, 0, 0, &whole);
  return Upload(device, whole, dtype);
}

}  // namespace

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

HostMatrix RoundedXa(const LayerCase& c, const HostLayer& layer) {
  HostMatrix xa = Unreadable(c.tokens, AllRanks(c, layer));
  Put(RoundTo(c.dtype,
              reference::Matmul(MatmulForm::kNT, layer.adapter_x, layer.a)),
      0, 0, &xa);
  return xa;
}

DeviceLayer Upload(const LayerCase& c, const HostLayer& layer, Device* device) {
  DeviceLayer on;
  const int64_t ranks = AllRanks(c, layer);
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
               : Upload(device, Padded(layer.a, ranks, c.inputs), c.dtype);
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
      const Range of = RanksOf(c, layer, p);
      on.held.push_back(
          c.place == Place::kBordered
              ? rows.Cols({c.inputs + of.begin, c.inputs + of.end})
              : Upload(device, Padded(layer.b[p], c.outputs[p], of.size()),
                       c.dtype));
      part.b = on.held.back().view();
    }
    on.parts.push_back(part);
  }
  return on;
}

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

std::vector<Tensor> UploadGrads(const LayerCase& c, const HostLayer& layer,
                                Device* device, Tensor* dxa) {
  std::vector<Tensor> dy;
  const std::vector<Range> outputs = OutputsOf(c);
  const int64_t ranks = AllRanks(c, layer);
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

}  // namespace lorica
