#include <cstdint>
#include <string>

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
constexpr Layout2d kLayouts[] = {Layout2d::kDense, Layout2d::kStrided};

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

// The result is a double on the host, returned in a tensor for comparison.
void AddSquaredNorm(int64_t elements, OpCaseList* list) {
  const HostMatrix x = RandomMatrix("x", 1, elements, DType::kF32);
  list->push_back({.entry = "squared_norm",
                   .name = "Of" + std::to_string(elements),
                   .prepare =
                       [=](Device* device) {
                         const Tensor values = UploadVector(device, x);
                         const Tensor norm = Room(device, 1, 1, DType::kF32);
                         return PreparedOp{.run =
                                               [=] {
                                                 double result = 0.0;
                                                 device->backend().squared_norm(
                                                     device->queue(),
                                                     values.view(), &result);
                                                 device->Synchronize();
                                                 const auto single =
                                                     static_cast<float>(result);
                                                 norm.CopyFrom(&single);
                                               },
                                           .results = {{"result", norm}}};
                       },
                   .expect = [=]() -> std::vector<OpExpectation> {
                     const HostMatrix norm =
                         reference::Matmul(MatmulForm::kNT, x, x);
                     return {Expect("result", norm, {}, norm)};
                   }});
}

}  // namespace

void AddElementwiseCases(OpCaseList* list) {
  for (const Size& size : kSizes) {
    for (const Layout2d layout : kLayouts) {
      for (const DType from : kComputeTypes) {
        AddFill(size, from, layout, list);
        for (const DType to : kComputeTypes) {
          AddConvert(size, from, to, layout, list);
          AddAdd(size, from, to, layout, list);
        }
      }
    }
  }
  for (const int64_t elements : {1, 8191, 100003}) {
    AddSquaredNorm(elements, list);
  }
}

}  // namespace lorica
