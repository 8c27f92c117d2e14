#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

using reference::Absolute;
using reference::Signs;
using reference::Sum;

constexpr double kEpsilon = 1e-5;

struct NormCase {
  int64_t rows;
  int64_t cols;
  DType dtype;
  Layout2d layout;
  bool delta;  // In backward: whether dx is added to.
};

std::string NameOf(const NormCase& c) {
  return std::to_string(c.rows) + "x" + std::to_string(c.cols) +
         WordOf(c.dtype) + WordOf(c.layout);
}

// Exact x + delta as the kernel's sum is only to the compute type.
OpCase RmsNormCase(const NormCase& c) {
  const HostMatrix x = RandomMatrix("x", c.rows, c.cols, c.dtype);
  const HostMatrix delta = RandomMatrix("delta", c.rows, c.cols, c.dtype);
  const HostMatrix weight = RandomMatrix("weight", 1, c.cols, DType::kF32);
  const auto prepare = [=](Device* device) {
    const Tensor on_x = Upload(device, x, c.dtype, c.layout);
    const Tensor on_delta =
        c.delta ? Upload(device, delta, c.dtype, c.layout) : Tensor();
    const Tensor on_weight = UploadVector(device, weight);
    const Tensor sum =
        c.delta ? Room(device, c.rows, c.cols, c.dtype, c.layout) : on_x;
    const Tensor y = Room(device, c.rows, c.cols, c.dtype, c.layout);
    const Tensor rstd = Room(device, 1, c.rows, DType::kF32);
    return PreparedOp{.run =
                          [=] {
                            device->backend().rms_norm(
                                device->queue(),
                                {.x = on_x.view(),
                                 .delta = on_delta.view(),
                                 .weight = on_weight.view(),
                                 .sum = sum.view(),
                                 .y = y.view(),
                                 .rstd = rstd.view(),
                                 .epsilon = static_cast<float>(kEpsilon)});
                          },
                      .results = {{"sum", sum}, {"y", y}, {"rstd", rstd}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    const HostMatrix sum = c.delta ? Sum(x, delta) : x;
    const HostMatrix y = RmsNorm(sum, weight, kEpsilon);
    HostMatrix rstd(1, c.rows);
    for (int64_t r = 0; r < c.rows; ++r) {
      rstd(0, r) = reference::Rstd(sum, r, kEpsilon);
    }
    // Rounding sum moves y by its own share and, through rstd, by at most as
    // much relatively as the largest element moves.
    const Bound bound = {.intermediate = c.delta ? c.dtype : DType::kF32,
                         .result = c.dtype,
                         .length = c.cols};
    Bound bound_rstd = bound;
    bound_rstd.result = DType::kF32;
    return {Expect("sum", sum, {.result = c.dtype}, Absolute(sum)),
            Expect("y", y, bound, Absolute(y)),
            Expect("rstd", rstd, bound_rstd, rstd)};
  };
  return {.entry = "rms_norm",
          .name = NameOf(c) + (c.delta ? "WithDelta" : ""),
          .prepare = prepare,
          .expect = expect};
}

OpCase RmsNormBackwardCase(const NormCase& c, DType dy_type) {
  const HostMatrix dy = RandomMatrix("dy", c.rows, c.cols, dy_type);
  const HostMatrix x = RandomMatrix("x", c.rows, c.cols, c.dtype);
  const HostMatrix weight = RandomMatrix("weight", 1, c.cols, DType::kF32);
  const HostMatrix before = RandomMatrix("dx", c.rows, c.cols, c.dtype);
  const auto prepare = [=](Device* device) {
    const Tensor on_dy = Upload(device, dy, dy_type, c.layout);
    const Tensor on_x = Upload(device, x, c.dtype, c.layout);
    const Tensor on_weight = UploadVector(device, weight);
    const Tensor dx = c.delta ? Upload(device, before, c.dtype, c.layout)
                              : Room(device, c.rows, c.cols, c.dtype, c.layout);
    HostMatrix rstd(1, c.rows);
    for (int64_t r = 0; r < c.rows; ++r) {
      rstd(0, r) = reference::Rstd(x, r, kEpsilon);
    }
    const Tensor on_rstd = UploadVector(device, rstd);
    return PreparedOp{
        .run =
            [=] {
              device->backend().rms_norm_backward(
                  device->queue(),
                  {.dy = on_dy.view(),
                   .x = on_x.view(),
                   .weight = on_weight.view(),
                   .rstd = on_rstd.view(),
                   .dx = dx.view(),
                   .update = c.delta ? Update::kAdd : Update::kAssign});
            },
        .results = {{"dx", dx}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    HostMatrix dx = RmsNormBackward(dy, x, weight, kEpsilon, Signs::kTrue);
    HostMatrix terms =
        RmsNormBackward(Absolute(dy), Absolute(x), Absolute(weight), kEpsilon,
                        Signs::kAbsolute);
    if (c.delta) {
      dx = Sum(dx, before);
      terms = Sum(terms, Absolute(before));
    }
    return {Expect("dx", dx, {.result = c.dtype, .length = c.cols}, terms)};
  };
  return {
      .entry = "rms_norm_backward",
      .name = NameOf(c) + "From" + WordOf(dy_type) + (c.delta ? "Added" : ""),
      .prepare = prepare,
      .expect = expect};
}

}  // namespace

void AddNormCases(OpCaseList* list) {
  for (const DType dtype : kComputeTypes) {
    for (const Layout2d layout : {Layout2d::kDense, Layout2d::kStrided}) {
      for (const bool delta : {false, true}) {
        for (const auto& [rows, cols] :
             {std::pair<int64_t, int64_t>{1, 7}, {3, 64}, {70, 577}}) {
          const NormCase c = {rows, cols, dtype, layout, delta};
          list->push_back(RmsNormCase(c));
          list->push_back(RmsNormBackwardCase(c, dtype));
          if (dtype == DType::kBF16) {
            list->push_back(RmsNormBackwardCase(c, DType::kF32));
          }
        }
      }
    }
  }
}

}  // namespace lorica
