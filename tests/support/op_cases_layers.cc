#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"

namespace lorica {
namespace {

using reference::Absolute;
using reference::Signs;

OpCase RopeCase(int64_t heads, int64_t head_dim, DType dtype, Layout2d layout,
                Direction direction) {
  constexpr int64_t kRows = 11;
  constexpr int64_t kPositions = 40;
  const HostMatrix x = RandomMatrix("x", kRows, heads * head_dim, dtype);
  const HostMatrix cos =
      RandomMatrix("cos", kPositions, head_dim / 2, DType::kF32);
  const HostMatrix sin =
      RandomMatrix("sin", kPositions, head_dim / 2, DType::kF32);
  const std::vector<int32_t> positions =
      RandomInts("positions", kRows, {0, kPositions});
  const auto prepare = [=](Device* device) {
    const Tensor on_x = Upload(device, x, dtype, layout);
    const Tensor on_cos = Upload(device, cos, DType::kF32);
    const Tensor on_sin = Upload(device, sin, DType::kF32);
    const Tensor on_positions = UploadInts(device, positions);
    return PreparedOp{.run =
                          [=] {
                            device->backend().rope(
                                device->queue(),
                                {.x = on_x.view(),
                                 .cos = on_cos.view(),
                                 .sin = on_sin.view(),
                                 .positions = on_positions.view(),
                                 .head_dim = head_dim,
                                 .direction = direction});
                          },
                      .results = {{"x", on_x}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    const double sign = direction == Direction::kForward ? 1.0 : -1.0;
    const HostMatrix y =
        Rope(x, cos, Scaled(sin, sign), positions, Signs::kTrue);
    const HostMatrix terms = Rope(Absolute(x), Absolute(cos), Absolute(sin),
                                  positions, Signs::kAbsolute);
    return {Expect("x", y, {.result = dtype, .length = 2}, terms)};
  };
  return {.entry = "rope",
          .name = std::to_string(heads) + "Heads" + std::to_string(head_dim) +
                  WordOf(dtype) + WordOf(layout) +
                  (direction == Direction::kForward ? "" : "Back"),
          .prepare = prepare,
          .expect = expect};
}

// An exponential and a quotient lose a few units in the last place each.
constexpr int64_t kSigmoidRoundings = 8;

OpCase SwigluCase(int64_t rows, int64_t cols, DType dtype, Layout2d layout) {
  // Gates reach far enough for the sigmoid to saturate, not to underflow.
  const HostMatrix gate =
      reference::Scaled(RandomMatrix("gate", rows, cols, dtype), 64.0);
  const HostMatrix up = RandomMatrix("up", rows, cols, dtype);
  const auto prepare = [=](Device* device) {
    const Tensor on_gate = Upload(device, gate, dtype, layout);
    const Tensor on_up = Upload(device, up, dtype, layout);
    const Tensor y = Room(device, rows, cols, dtype, layout);
    return PreparedOp{
        .run =
            [=] {
              device->backend().swiglu(
                  device->queue(),
                  {.gate = on_gate.view(), .up = on_up.view(), .y = y.view()});
            },
        .results = {{"y", y}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    const HostMatrix y = Swiglu(gate, up);
    return {Expect("y", y, {.result = dtype, .length = kSigmoidRoundings},
                   Absolute(y))};
  };
  return {.entry = "swiglu",
          .name = std::to_string(rows) + "x" + std::to_string(cols) +
                  WordOf(dtype) + WordOf(layout),
          .prepare = prepare,
          .expect = expect};
}

OpCase SwigluBackwardCase(int64_t rows, int64_t cols, DType dtype,
                          Layout2d layout) {
  const HostMatrix dy = RandomMatrix("dy", rows, cols, dtype);
  const HostMatrix gate =
      reference::Scaled(RandomMatrix("gate", rows, cols, dtype), 8.0);
  const HostMatrix up = RandomMatrix("up", rows, cols, dtype);
  const auto prepare = [=](Device* device) {
    const Tensor on_dy = Upload(device, dy, dtype, layout);
    const Tensor on_gate = Upload(device, gate, dtype, layout);
    const Tensor on_up = Upload(device, up, dtype, layout);
    // In place over gate and up, as ops.cc does.
    return PreparedOp{.run =
                          [=] {
                            device->backend().swiglu_backward(
                                device->queue(), {.dy = on_dy.view(),
                                                  .gate = on_gate.view(),
                                                  .up = on_up.view(),
                                                  .dgate = on_gate.view(),
                                                  .dup = on_up.view()});
                          },
                      .results = {{"dgate", on_gate}, {"dup", on_up}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    const auto grads = SwigluBackward(dy, gate, up, Signs::kTrue);
    const auto terms =
        SwigluBackward(Absolute(dy), gate, Absolute(up), Signs::kAbsolute);
    const Bound bound = {.result = dtype, .length = 2 * kSigmoidRoundings};
    return {Expect("dgate", grads.dgate, bound, terms.dgate),
            Expect("dup", grads.dup, bound, terms.dup)};
  };
  return {.entry = "swiglu_backward",
          .name = std::to_string(rows) + "x" + std::to_string(cols) +
                  WordOf(dtype) + WordOf(layout),
          .prepare = prepare,
          .expect = expect};
}

// Magnitudes that errors of the logistic function of z and of its derivative
// are proportional to. An error in z moves e^-|z| by as many units as |z| has,
// of which s has a share of 1 - s; what lies below the smallest normal number
// may be flushed to zero.
struct LogisticTerms {
  double value;
  double slope;
};

LogisticTerms LogisticTermsOf(double z) {
  const double flushed = 0x1p-126 / UnitRoundoff(DType::kF32);
  const double s = reference::Sigmoid(z);
  const double rest = reference::Sigmoid(-z);
  return {s * (1.0 + std::abs(z) * rest) + flushed,
          s * rest * (1.0 + std::abs(z)) + flushed};
}

// Half of it where GELU bends, the rest far enough for the logistic function to
// underflow.
HostMatrix GeluInput(int64_t rows, int64_t cols, DType dtype) {
  return RoundTo(dtype,
                 reference::Map(RandomMatrix("x", rows, cols, dtype),
                                [](double v) { return 64 * v * v * v; }));
}

OpCase GeluCase(int64_t rows, int64_t cols, DType dtype, Layout2d layout) {
  const HostMatrix x = GeluInput(rows, cols, dtype);
  const auto prepare = [=](Device* device) {
    const Tensor on_x = Upload(device, x, dtype, layout);
    const Tensor y = Room(device, rows, cols, dtype, layout);
    return PreparedOp{.run =
                          [=] {
                            device->backend().gelu(
                                device->queue(),
                                {.x = on_x.view(), .y = y.view()});
                          },
                      .results = {{"y", y}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    const HostMatrix terms = reference::Map(x, [](double v) {
      const double z = reference::GeluArgumentOf(v).z;
      return std::abs(v) * LogisticTermsOf(z).value;
    });
    return {Expect("y", Gelu(x), {.result = dtype, .length = kSigmoidRoundings},
                   terms)};
  };
  return {.entry = "gelu",
          .name = std::to_string(rows) + "x" + std::to_string(cols) +
                  WordOf(dtype) + WordOf(layout),
          .prepare = prepare,
          .expect = expect};
}

OpCase GeluBackwardCase(int64_t rows, int64_t cols, DType dtype,
                        Layout2d layout) {
  const HostMatrix dy = RandomMatrix("dy", rows, cols, dtype);
  const HostMatrix x = GeluInput(rows, cols, dtype);
  const auto prepare = [=](Device* device) {
    const Tensor on_dy = Upload(device, dy, dtype, layout);
    // In place over x, whose values nobody needs any more.
    const Tensor on_x = Upload(device, x, dtype, layout);
    return PreparedOp{
        .run =
            [=] {
              device->backend().gelu_backward(
                  device->queue(),
                  {.dy = on_dy.view(), .x = on_x.view(), .dx = on_x.view()});
            },
        .results = {{"dx", on_x}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    HostMatrix terms(rows, cols);
    for (size_t i = 0; i < terms.values.size(); ++i) {
      const auto [z, slope] = reference::GeluArgumentOf(x.values[i]);
      const LogisticTerms s = LogisticTermsOf(z);
      terms.values[i] = std::abs(dy.values[i]) *
                        (s.value + std::abs(x.values[i]) * s.slope * slope);
    }
    return {Expect("dx", GeluBackward(dy, x),
                   {.result = dtype, .length = 2 * kSigmoidRoundings}, terms)};
  };
  return {.entry = "gelu_backward",
          .name = std::to_string(rows) + "x" + std::to_string(cols) +
                  WordOf(dtype) + WordOf(layout),
          .prepare = prepare,
          .expect = expect};
}

OpCase AdamWCase(int64_t elements, const ops::AdamWStep& step, Layout2d layout,
                 const char* word) {
  const HostMatrix value = RandomMatrix("value", 1, elements, DType::kF32);
  const HostMatrix grad = RandomMatrix("grad", 1, elements, DType::kF32);
  const HostMatrix m = RandomMatrix("m", 1, elements, DType::kF32);
  const HostMatrix v = Absolute(RandomMatrix("v", 1, elements, DType::kF32));
  const AdamWNumbers numbers = ops::NumbersOf(step);
  const auto prepare = [=](Device* device) {
    const Tensor on_value = Upload(device, value, DType::kF32, layout);
    const Tensor on_grad = Upload(device, grad, DType::kF32, layout);
    const Tensor on_m = Upload(device, m, DType::kF32, layout);
    const Tensor on_v = Upload(device, v, DType::kF32, layout);
    const Tensor on_numbers =
        Tensor::Empty(device, ops::kAdamWNumbersShape, DType::kF32);
    on_numbers.CopyFrom(&numbers);
    return PreparedOp{
        .run =
            [=] {
              device->backend().adamw(device->queue(),
                                      {.value = on_value.view(),
                                       .grad = on_grad.view(),
                                       .m = on_m.view(),
                                       .v = on_v.view(),
                                       .numbers = on_numbers.view()});
            },
        .results = {{"value", on_value}, {"m", on_m}, {"v", on_v}}};
  };
  const auto expect = [=]() -> std::vector<OpExpectation> {
    HostMatrix new_value(1, elements), new_m(1, elements), new_v(1, elements);
    HostMatrix value_terms(1, elements), m_terms(1, elements);
    for (int64_t i = 0; i < elements; ++i) {
      const auto next =
          reference::AdamW(step, {value(0, i), m(0, i), v(0, i)}, grad(0, i));
      const double m_term =
          std::abs(m(0, i)) + std::abs(grad(0, i) * step.grad_scale);
      new_value(0, i) = next.value;
      new_m(0, i) = next.m;
      new_v(0, i) = next.v;
      m_terms(0, i) = m_term;
      // The step is m over a root; its error is that of m, which may cancel.
      const double change = std::abs(next.value - value(0, i));
      const double growth = m_term / std::max(std::abs(next.m), 1e-300);
      value_terms(0, i) = std::abs(value(0, i)) + change * growth;
    }
    const Bound bound = {.length = 8};
    return {Expect("value", new_value, bound, value_terms),
            Expect("m", new_m, bound, m_terms),
            Expect("v", new_v, bound, new_v)};
  };
  return {.entry = "adamw",
          .name = word + WordOf(layout),
          .prepare = prepare,
          .expect = expect};
}

}  // namespace

void AddLayerCases(OpCaseList* list) {
  for (const DType dtype : kComputeTypes) {
    for (const Layout2d layout : kEveryLayout) {
      for (const auto direction : {Direction::kForward, Direction::kBackward}) {
        list->push_back(RopeCase(1, 2, dtype, layout, direction));
        list->push_back(RopeCase(3, 64, dtype, layout, direction));
        list->push_back(RopeCase(4, 42, dtype, layout, direction));
      }
      for (const auto& [rows, cols] :
           {std::pair<int64_t, int64_t>{1, 5}, {17, 97}, {40, 512}}) {
        list->push_back(SwigluCase(rows, cols, dtype, layout));
        list->push_back(SwigluBackwardCase(rows, cols, dtype, layout));
        list->push_back(GeluCase(rows, cols, dtype, layout));
        list->push_back(GeluBackwardCase(rows, cols, dtype, layout));
      }
    }
  }
  for (const Layout2d layout : {Layout2d::kDense, Layout2d::kStrided}) {
    list->push_back(
        AdamWCase(5, {.learning_rate = 1e-2f, .step = 1}, layout, "First"));
    list->push_back(AdamWCase(20001,
                              {.learning_rate = 1e-2f,
                               .weight_decay = 0.1f,
                               .grad_scale = 0.5f,
                               .step = 100},
                              layout, "DecayedAndClipped"));
  }
}

}  // namespace lorica
