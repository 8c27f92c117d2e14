#include <cmath>
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
    // As it is stored.
    const HostMatrix sum = c.delta ? RoundTo(c.dtype, Sum(x, delta)) : x;
    const HostMatrix y = RmsNorm(sum, weight, kEpsilon);
    HostMatrix rstd(1, c.rows);
    for (int64_t r = 0; r < c.rows; ++r) {
      rstd(0, r) = reference::Rstd(sum, r, kEpsilon);
    }
    return {Expect("sum", sum, {.result = c.dtype}, Absolute(sum)),
            Expect("y", y, {.result = c.dtype, .length = c.cols}, Absolute(y)),
            Expect("rstd", rstd, {.length = c.cols}, rstd)};
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

// The magnitudes that errors of LayerNorm's results are proportional to. An
// error e of the mean, which is proportional to the size of the elements, moves
// each difference from it by e and rstd by (e rstd)^2 / 2 of itself, which is
// less than e rstd.
struct LayerNormTerms {
  HostMatrix y, mean, rstd;
};

LayerNormTerms TermsOf(const HostMatrix& x, const HostMatrix& weight,
                       const HostMatrix& bias) {
  LayerNormTerms terms = {HostMatrix(x.rows, x.cols), HostMatrix(1, x.rows),
                          HostMatrix(1, x.rows)};
  for (int64_t r = 0; r < x.rows; ++r) {
    const auto [mean, rstd] = reference::Moments(x, r, kEpsilon);
    double size = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) {
      size += std::abs(x(r, c)) / static_cast<double>(x.cols);
    }
    const double of_rstd = 1.0 + size * rstd;
    terms.mean(0, r) = size;
    terms.rstd(0, r) = rstd * of_rstd;
    for (int64_t c = 0; c < x.cols; ++c) {
      const double difference = size + std::abs(x(r, c) - mean) * of_rstd;
      terms.y(r, c) =
          rstd * difference * std::abs(weight(0, c)) + std::abs(bias(0, c));
    }
  }
  return terms;
}

// The same of dx, to first order in the errors of the normalized x, each at
// most rstd (|x| + |mean|).
HostMatrix BackwardTermsOf(const HostMatrix& dy, const HostMatrix& x,
                           const HostMatrix& weight) {
  const double n = static_cast<double>(x.cols);
  HostMatrix terms(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const auto moments = reference::Moments(x, r, kEpsilon);
    const auto g = [&](int64_t c) { return std::abs(dy(r, c) * weight(0, c)); };
    const auto value = [&](int64_t c) {
      return std::abs(x(r, c) - moments.mean) * moments.rstd;
    };
    const auto error = [&](int64_t c) {
      return (std::abs(x(r, c)) + std::abs(moments.mean)) * moments.rstd;
    };
    double mean_g = 0.0, mean_dot = 0.0, mean_dot_error = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) {
      mean_g += g(c) / n;
      mean_dot += g(c) * value(c) / n;
      mean_dot_error += g(c) * error(c) / n;
    }
    for (int64_t c = 0; c < x.cols; ++c) {
      terms(r, c) =
          moments.rstd * (g(c) + mean_g + (value(c) + error(c)) * mean_dot +
                          value(c) * mean_dot_error);
    }
  }
  return terms;
}

// Elements of x around `offset`.
HostMatrix RandomAround(double offset, const NormCase& c) {
  HostMatrix x = RandomMatrix("x", c.rows, c.cols, DType::kF32);
  return RoundTo(c.dtype, reference::Map(std::move(x), [=](double value) {
                   return offset + value;
                 }));
}

std::string NameOf(const NormCase& c, double offset) {
  return NameOf(c) +
         (offset == 0 ? ""
                      : "Around" + std::to_string(static_cast<int>(offset)));
}

OpCase LayerNormCase(const NormCase& c, double offset) {
  const HostMatrix x = RandomAround(offset, c);
  const HostMatrix delta = RandomMatrix("delta", c.rows, c.cols, c.dtype);
  const HostMatrix weight = RandomMatrix("weight", 1, c.cols, DType::kF32);
  const HostMatrix bias = RandomMatrix("bias", 1, c.cols, DType::kF32);
  const auto prepare = [=](Device* device) {
    const Tensor on_x = Upload(device, x, c.dtype, c.layout);
    const Tensor on_delta =
        c.delta ? Upload(device, delta, c.dtype, c.layout) : Tensor();
    const Tensor on_weight = UploadVector(device, weight);
    const Tensor on_bias = UploadVector(device, bias);
    const Tensor sum =
        c.delta ? Room(device, c.rows, c.cols, c.dtype, c.layout) : on_x;
    const Tensor y = Room(device, c.rows, c.cols, c.dtype, c.layout);
    const Tensor mean = Room(device, 1, c.rows, DType::kF32);
    const Tensor rstd = Room(device, 1, c.rows, DType::kF32);
    return PreparedOp{
        .run =
            [=] {
              device->backend().layer_norm(
                  device->queue(), {.x = on_x.view(),
                                    .delta = on_delta.view(),
                                    .weight = on_weight.view(),
                                    .bias = on_bias.view(),
                                    .sum = sum.view(),
                                    .y = y.view(),
                                    .mean = mean.view(),
                                    .rstd = rstd.view(),
                                    .epsilon = static_cast<float>(kEpsilon)});
            },
        .results = {{"sum", sum}, {"y", y}, {"mean", mean}, {"rstd", rstd}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    // As it is stored.
    const HostMatrix sum = c.delta ? RoundTo(c.dtype, Sum(x, delta)) : x;
    HostMatrix mean(1, c.rows), rstd(1, c.rows);
    for (int64_t r = 0; r < c.rows; ++r) {
      const auto moments = reference::Moments(sum, r, kEpsilon);
      mean(0, r) = moments.mean;
      rstd(0, r) = moments.rstd;
    }
    const LayerNormTerms terms = TermsOf(sum, weight, bias);
    const Bound of_moments = {.length = c.cols};
    return {Expect("sum", sum, {.result = c.dtype}, Absolute(sum)),
            Expect("y", LayerNorm(sum, weight, bias, kEpsilon),
                   {.result = c.dtype, .length = c.cols}, terms.y),
            Expect("mean", mean, of_moments, terms.mean),
            Expect("rstd", rstd, of_moments, terms.rstd)};
  };
  return {.entry = "layer_norm",
          .name = NameOf(c, offset) + (c.delta ? "WithDelta" : ""),
          .prepare = prepare,
          .expect = expect};
}

OpCase LayerNormBackwardCase(const NormCase& c, DType dy_type, double offset) {
  const HostMatrix dy = RandomMatrix("dy", c.rows, c.cols, dy_type);
  const HostMatrix x = RandomAround(offset, c);
  const HostMatrix weight = RandomMatrix("weight", 1, c.cols, DType::kF32);
  const HostMatrix before = RandomMatrix("dx", c.rows, c.cols, c.dtype);
  HostMatrix mean(1, c.rows), rstd(1, c.rows);
  for (int64_t r = 0; r < c.rows; ++r) {
    const auto moments = reference::Moments(x, r, kEpsilon);
    mean(0, r) = moments.mean;
    rstd(0, r) = moments.rstd;
  }
  const auto prepare = [=](Device* device) {
    const Tensor on_dy = Upload(device, dy, dy_type, c.layout);
    const Tensor on_x = Upload(device, x, c.dtype, c.layout);
    const Tensor on_weight = UploadVector(device, weight);
    const Tensor on_mean = UploadVector(device, mean);
    const Tensor on_rstd = UploadVector(device, rstd);
    const Tensor dx = c.delta ? Upload(device, before, c.dtype, c.layout)
                              : Room(device, c.rows, c.cols, c.dtype, c.layout);
    return PreparedOp{
        .run =
            [=] {
              device->backend().layer_norm_backward(
                  device->queue(),
                  {.dy = on_dy.view(),
                   .x = on_x.view(),
                   .weight = on_weight.view(),
                   .mean = on_mean.view(),
                   .rstd = on_rstd.view(),
                   .dx = dx.view(),
                   .update = c.delta ? Update::kAdd : Update::kAssign});
            },
        .results = {{"dx", dx}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    HostMatrix dx = LayerNormBackward(dy, x, weight, kEpsilon);
    HostMatrix terms = BackwardTermsOf(dy, x, weight);
    if (c.delta) {
      dx = Sum(dx, before);
      terms = Sum(terms, Absolute(before));
    }
    return {Expect("dx", dx, {.result = c.dtype, .length = c.cols}, terms)};
  };
  return {.entry = "layer_norm_backward",
          .name = NameOf(c, offset) + "From" + WordOf(dy_type) +
                  (c.delta ? "Added" : ""),
          .prepare = prepare,
          .expect = expect};
}

void AddLayerNormCases(const NormCase& c, OpCaseList* list) {
  // So far above the deviation that a sum of squares holds nothing of it, or as
  // far as the type lets the elements differ.
  const double far = c.dtype == DType::kF32 ? 4096.0 : 16.0;
  for (const double offset : {0.0, far}) {
    list->push_back(LayerNormCase(c, offset));
    list->push_back(LayerNormBackwardCase(c, c.dtype, offset));
  }
  if (c.dtype == DType::kBF16) {
    list->push_back(LayerNormBackwardCase(c, DType::kF32, 0.0));
  }
}

}  // namespace

void AddNormCases(OpCaseList* list) {
  for (const DType dtype : kComputeTypes) {
    for (const Layout2d layout : kEveryLayout) {
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
        for (const auto& [rows, cols] :
             {std::pair<int64_t, int64_t>{1, 7}, {3, 1}, {3, 64}, {9, 577}}) {
          AddLayerNormCases({rows, cols, dtype, layout, delta}, list);
        }
      }
    }
  }
}

}  // namespace lorica
