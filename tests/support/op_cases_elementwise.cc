#include <cstdint>
#include <string>
#include <vector>

#include "runtime/ops.h"
#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

struct Size {
  int64_t rows;
  int64_t cols;
  const char* word;
};

// Odd, one row, and long enough for several threads.
constexpr Size kSizes[] = {
    {3, 5, "Small"}, {1, 37, "OneRow"}, {70, 601, "Large"}};

void AddFill(const Size& size, DType dtype, Layout2d layout, OpCaseList* list) {
  const double value = -1.5;
  list->push_back(
      {.entry = "fill",
       .name = size.word + WordOf(dtype) + WordOf(layout),
       .prepare =
           [=](Device* device) {
             const Tensor y = Room(device, size.rows, size.cols, dtype, layout);
             return PreparedOp{.run =
                                   [=] {
                                     device->backend().fill(
                                         device->queue(), y.view(),
                                         static_cast<float>(value));
                                   },
                               .results = {{"y", y}}};
           },
       .expect = [=]() -> std::vector<OpExpectation> {
         const HostMatrix y = reference::Map(HostMatrix(size.rows, size.cols),
                                             [=](double) { return value; });
         return {Expect("y", y, {.result = dtype}, reference::Absolute(y))};
       }});
}

void AddConvert(const Size& size, DType from, DType to, Layout2d layout,
                OpCaseList* list) {
  const double scale = 0.75;
  const HostMatrix x = RandomMatrix("x", size.rows, size.cols, from);
  list->push_back(
      {.entry = "convert",
       .name = size.word + WordOf(from) + "To" + WordOf(to) + WordOf(layout),
       .prepare =
           [=](Device* device) {
             const Tensor from_x = Upload(device, x, from, layout);
             const Tensor y = Room(device, size.rows, size.cols, to, layout);
             return PreparedOp{.run =
                                   [=] {
                                     device->backend().convert(
                                         device->queue(), from_x.view(),
                                         static_cast<float>(scale), y.view());
                                   },
                               .results = {{"y", y}}};
           },
       .expect = [=]() -> std::vector<OpExpectation> {
         const HostMatrix y = reference::Scaled(x, scale);
         return {Expect("y", y, {.result = to}, reference::Absolute(y))};
       }});
}

void AddAdd(const Size& size, DType from, DType to, Layout2d layout,
            OpCaseList* list) {
  const HostMatrix x = RandomMatrix("x", size.rows, size.cols, from);
  const HostMatrix y = RandomMatrix("y", size.rows, size.cols, to);
  list->push_back(
      {.entry = "add",
       .name = size.word + WordOf(from) + "To" + WordOf(to) + WordOf(layout),
       .prepare =
           [=](Device* device) {
             const Tensor term = Upload(device, x, from, layout);
             const Tensor sum = Upload(device, y, to, layout);
             return PreparedOp{.run =
                                   [=] {
                                     device->backend().add(device->queue(),
                                                           term.view(),
                                                           sum.view());
                                   },
                               .results = {{"y", sum}}};
           },
       .expect = [=]() -> std::vector<OpExpectation> {
         return {Expect(
             "y", reference::Sum(x, y), {.result = to},
             reference::Sum(reference::Absolute(x), reference::Absolute(y)))};
       }});
}

// A piece of a row, and where in a matrix it goes.
struct Place {
  int64_t begin;
  double scale;
  Size size;
  int64_t row;
  int64_t col;
};

// Pieces that lie in one matrix like the factors of adapters in their weights'
// border; the rest of it stays.
struct ScatterShape {
  const char* word;
  int64_t elements;
  Size matrix;
  std::vector<Place> places;
};

// Rows of 72 elements begin at multiples of 16 bytes. Of each kind, a piece
// that kernels can take by vectors of eight, and some that they cannot.
std::vector<ScatterShape> ScatterShapes() {
  return {{"Factors",
           4000,
           {80, 72, ""},
           {{32, 1.0, {3, 40, ""}, 0, 0},
            {5, 0.75, {3, 5, ""}, 4, 3},
            {200, 1.25, {70, 16, ""}, 8, 48},
            {1501, 1.25, {70, 8, ""}, 8, 32},
            {2304, -0.5, {70, 3, ""}, 8, 19},
            {2304, 3.0, {70, 8, ""}, 8, 2},
            {7, 1.0, {0, 8, ""}, 0, 40}}},
          {"OneLong", 20020, {1, 20016, ""}, {{8, 0.75, {1, 20008, ""}, 0, 8}}},
          {"OneOdd", 20020, {1, 20016, ""}, {{3, 0.75, {1, 20011, ""}, 0, 1}}},
          {"None", 8, {1, 8, ""}, {}}};
}

void AddScatterPieces(const ScatterShape& shape, DType to, OpCaseList* list) {
  const HostMatrix x = RandomMatrix("x", 1, shape.elements, DType::kF32);
  const HostMatrix before =
      RandomMatrix("y", shape.matrix.rows, shape.matrix.cols, to);
  const auto prepare = [=](Device* device) {
    const Tensor from = UploadVector(device, x);
    const Tensor y = Upload(device, before, to);
    std::vector<ops::Piece> pieces;
    for (const Place& place : shape.places) {
      const auto& [rows, cols, word] = place.size;
      pieces.push_back({place.begin, static_cast<float>(place.scale),
                        y.Rows({place.row, place.row + rows})
                            .Cols({place.col, place.col + cols})});
    }
    if (pieces.empty()) pieces.push_back({0, 1.0f, y.Rows({0, 0})});
    const ops::PieceTable table = ops::MakePieceTable(pieces);
    const auto count = static_cast<int64_t>(shape.places.size());
    return PreparedOp{.run =
                          [=] {
                            device->backend().scatter_pieces(
                                device->queue(),
                                {.x = from.view(),
                                 .pieces = table.table.Rows({0, count}).view(),
                                 .dtype = to});
                          },
                      .results = {{"y", y}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    HostMatrix y = before;
    for (const Place& place : shape.places) {
      Put(reference::Piece(x, place.begin, place.scale, place.size.rows,
                           place.size.cols),
          place.row, place.col, &y);
    }
    return {Expect("y", y, {.result = to}, reference::Absolute(y))};
  };
  list->push_back({.entry = "scatter_pieces",
                   .name = shape.word + WordOf(to),
                   .prepare = prepare,
                   .expect = expect});
}

// The result is a double on the host, returned in a tensor for comparison.
void AddSquaredNorm(int64_t elements, Layout2d layout, OpCaseList* list) {
  const HostMatrix x = RandomMatrix("x", 1, elements, DType::kF32);
  list->push_back(
      {.entry = "squared_norm",
       .name = "Of" + std::to_string(elements) + WordOf(layout),
       .prepare =
           [=](Device* device) {
             const Tensor values = Upload(device, x, DType::kF32, layout);
             const Tensor norm = Room(device, 1, 1, DType::kF32);
             return PreparedOp{
                 .run =
                     [=] {
                       const Tensor sum =
                           Tensor::Empty(device, {1}, DType::kF64);
                       device->backend().squared_norm(
                           device->queue(), values.view(), sum.view());
                       const auto single =
                           static_cast<float>(sum.ToHost<double>()[0]);
                       norm.CopyFrom(&single);
                     },
                 .results = {{"result", norm}}};
           },
       .expect = [=]() -> std::vector<OpExpectation> {
         const HostMatrix norm = reference::Matmul(MatmulForm::kNT, x, x);
         return {Expect("result", norm, {}, norm)};
       }});
}

}  // namespace

void AddElementwiseCases(OpCaseList* list) {
  for (const Size& size : kSizes) {
    for (const Layout2d layout : kEveryLayout) {
      for (const DType from : kComputeTypes) {
        AddFill(size, from, layout, list);
        for (const DType to : kComputeTypes) {
          AddConvert(size, from, to, layout, list);
          AddAdd(size, from, to, layout, list);
        }
      }
    }
  }
  for (const ScatterShape& shape : ScatterShapes()) {
    for (const DType to : kComputeTypes) AddScatterPieces(shape, to, list);
  }
  for (const int64_t elements : {1, 8191, 100003}) {
    AddSquaredNorm(elements, Layout2d::kDense, list);
    AddSquaredNorm(elements, Layout2d::kStrided, list);
  }
}

}  // namespace lorica
