// Every op of runtime/backend.h in its plainest form: what the formula says,
// element by element. With S = double they are the oracle of the kernels; with
// S = std::complex<double> a derivative is the imaginary part that a small
// imaginary step leaves, exact but for rounding, so the backward functions are
// checked against the forward ones without a step size to tune.
//
// Backward functions take a `Signs`. With kAbsolute, on operands that are
// absolute values, they return the sum of the magnitudes of the terms instead
// of their sum: what the error bounds of tolerance.h are proportional to.
#ifndef LORICA_TESTS_SUPPORT_REFERENCE_H_
#define LORICA_TESTS_SUPPORT_REFERENCE_H_

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

#include "runtime/backend.h"
#include "runtime/check.h"
#include "runtime/ops.h"

namespace lorica::reference {

template <typename S>
struct Matrix {
  Matrix() = default;
  Matrix(int64_t num_rows, int64_t num_cols)
      : rows(num_rows),
        cols(num_cols),
        values(static_cast<size_t>(num_rows * num_cols)) {}

  S& operator()(int64_t r, int64_t c) {
    return values[static_cast<size_t>(r * cols + c)];
  }
  const S& operator()(int64_t r, int64_t c) const {
    return values[static_cast<size_t>(r * cols + c)];
  }

  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<S> values;
};

enum class Signs : uint8_t { kTrue, kAbsolute };

// a - b, or a + b between magnitudes.
template <typename S>
S Difference(Signs signs, S a, S b) {
  return signs == Signs::kTrue ? a - b : a + b;
}

// The matrix with each element f(element).
template <typename S, typename F>
Matrix<S> Map(Matrix<S> x, const F& f) {
  for (S& value : x.values) value = f(value);
  return x;
}

template <typename S>
Matrix<S> Absolute(const Matrix<S>& x) {
  return Map(x, [](S value) { return S(std::abs(value)); });
}

template <typename S>
Matrix<S> Sum(Matrix<S> x, const Matrix<S>& y) {
  CHECK(x.rows == y.rows && x.cols == y.cols);
  for (size_t i = 0; i < x.values.size(); ++i) x.values[i] += y.values[i];
  return x;
}

template <typename S>
Matrix<S> Scaled(const Matrix<S>& x, double factor) {
  return Map(x, [&](S value) { return factor * value; });
}

// `scale` times the elements of a row from `begin` on, as a matrix.
template <typename S>
Matrix<S> Piece(const Matrix<S>& row, int64_t begin, double scale, int64_t rows,
                int64_t cols) {
  Matrix<S> y(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) {
    y.values[static_cast<size_t>(i)] = scale * row(0, begin + i);
  }
  return y;
}

template <typename S>
Matrix<S> Columns(const Matrix<S>& x, Range cols) {
  Matrix<S> y(x.rows, cols.size());
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t c = 0; c < y.cols; ++c) y(r, c) = x(r, cols.begin + c);
  }
  return y;
}

template <typename S>
Matrix<S> Matmul(MatmulForm form, const Matrix<S>& a, const Matrix<S>& b) {
  const bool a_transposed = form == MatmulForm::kTN;
  const bool b_transposed = form == MatmulForm::kNT;
  Matrix<S> y(a_transposed ? a.cols : a.rows, b_transposed ? b.rows : b.cols);
  const int64_t depth = a_transposed ? a.rows : a.cols;
  CHECK(depth == (b_transposed ? b.cols : b.rows));
  for (int64_t m = 0; m < y.rows; ++m) {
    for (int64_t n = 0; n < y.cols; ++n) {
      S sum = 0.0;
      for (int64_t k = 0; k < depth; ++k) {
        sum += (a_transposed ? a(k, m) : a(m, k)) *
               (b_transposed ? b(n, k) : b(k, n));
      }
      y(m, n) = sum;
    }
  }
  return y;
}

// The only row of x, `rows` times.
template <typename S>
Matrix<S> Repeated(const Matrix<S>& x, int64_t rows) {
  CHECK(x.rows == 1);
  Matrix<S> y(rows, x.cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) y(r, c) = x(0, c);
  }
  return y;
}

template <typename S>
S Rstd(const Matrix<S>& x, int64_t row, double epsilon) {
  S squares = 0.0;
  for (int64_t c = 0; c < x.cols; ++c) squares += x(row, c) * x(row, c);
  return 1.0 / std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
}

// `weight` is [1, H].
template <typename S>
Matrix<S> RmsNorm(const Matrix<S>& x, const Matrix<S>& weight, double epsilon) {
  Matrix<S> y(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const S rstd = Rstd(x, r, epsilon);
    for (int64_t c = 0; c < x.cols; ++c) {
      y(r, c) = x(r, c) * rstd * weight(0, c);
    }
  }
  return y;
}

template <typename S>
Matrix<S> RmsNormBackward(const Matrix<S>& dy, const Matrix<S>& x,
                          const Matrix<S>& weight, double epsilon,
                          Signs signs) {
  Matrix<S> dx(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const S rstd = Rstd(x, r, epsilon);
    S dot = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) {
      dot += dy(r, c) * weight(0, c) * x(r, c);
    }
    const S along = dot * rstd * rstd / static_cast<double>(x.cols);
    for (int64_t c = 0; c < x.cols; ++c) {
      dx(r, c) =
          rstd * Difference<S>(signs, dy(r, c) * weight(0, c), x(r, c) * along);
    }
  }
  return dx;
}

// What a row is normalized by.
template <typename S>
struct RowMoments {
  S mean;
  S rstd;
};

template <typename S>
RowMoments<S> Moments(const Matrix<S>& x, int64_t row, double epsilon) {
  const double n = static_cast<double>(x.cols);
  S sum = 0.0;
  for (int64_t c = 0; c < x.cols; ++c) sum += x(row, c);
  const S mean = sum / n;
  S squares = 0.0;
  for (int64_t c = 0; c < x.cols; ++c) {
    squares += (x(row, c) - mean) * (x(row, c) - mean);
  }
  return {mean, 1.0 / std::sqrt(squares / n + epsilon)};
}

// `weight` and `bias` are [1, H].
template <typename S>
Matrix<S> LayerNorm(const Matrix<S>& x, const Matrix<S>& weight,
                    const Matrix<S>& bias, double epsilon) {
  Matrix<S> y(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const auto [mean, rstd] = Moments(x, r, epsilon);
    for (int64_t c = 0; c < x.cols; ++c) {
      y(r, c) = (x(r, c) - mean) * rstd * weight(0, c) + bias(0, c);
    }
  }
  return y;
}

template <typename S>
Matrix<S> LayerNormBackward(const Matrix<S>& dy, const Matrix<S>& x,
                            const Matrix<S>& weight, double epsilon) {
  const double n = static_cast<double>(x.cols);
  Matrix<S> dx(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const auto [mean, rstd] = Moments(x, r, epsilon);
    S sum = 0.0;
    S dot = 0.0;
    for (int64_t c = 0; c < x.cols; ++c) {
      const S g = dy(r, c) * weight(0, c);
      sum += g;
      dot += g * (x(r, c) - mean) * rstd;
    }
    for (int64_t c = 0; c < x.cols; ++c) {
      const S normalized = (x(r, c) - mean) * rstd;
      dx(r, c) =
          rstd * (dy(r, c) * weight(0, c) - sum / n - normalized * dot / n);
    }
  }
  return dx;
}

// `cos` and `sin` are [positions, head_dim / 2]. Its own backward with -sin.
template <typename S>
Matrix<S> Rope(const Matrix<S>& x, const Matrix<S>& cos, const Matrix<S>& sin,
               const std::vector<int32_t>& positions, Signs signs) {
  const int64_t half = cos.cols;
  Matrix<S> y(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const int64_t position = positions[static_cast<size_t>(r)];
    for (int64_t head = 0; head < x.cols; head += 2 * half) {
      for (int64_t i = 0; i < half; ++i) {
        const S a = x(r, head + i);
        const S b = x(r, head + half + i);
        const S c = cos(position, i);
        const S s = sin(position, i);
        y(r, head + i) = Difference<S>(signs, a * c, b * s);
        y(r, head + half + i) = b * c + a * s;
      }
    }
  }
  return y;
}

template <typename S>
S Sigmoid(S x) {
  return 1.0 / (1.0 + std::exp(-x));
}

template <typename S>
Matrix<S> Swiglu(const Matrix<S>& gate, const Matrix<S>& up) {
  Matrix<S> y(gate.rows, gate.cols);
  for (size_t i = 0; i < y.values.size(); ++i) {
    const S g = gate.values[i];
    y.values[i] = g * Sigmoid(g) * up.values[i];
  }
  return y;
}

template <typename S>
struct SwigluGrads {
  Matrix<S> dgate;
  Matrix<S> dup;
};

// With kAbsolute, gate keeps its sign, which the sigmoid needs.
template <typename S>
SwigluGrads<S> SwigluBackward(const Matrix<S>& dy, const Matrix<S>& gate,
                              const Matrix<S>& up, Signs signs) {
  SwigluGrads<S> grads = {Matrix<S>(dy.rows, dy.cols),
                          Matrix<S>(dy.rows, dy.cols)};
  for (size_t i = 0; i < dy.values.size(); ++i) {
    const S g = gate.values[i];
    const S s = Sigmoid(g);
    const S rest = g * s * (1.0 - s);
    const bool absolute = signs == Signs::kAbsolute;
    const S slope = s + (absolute ? std::abs(rest) : rest);
    grads.dgate.values[i] = dy.values[i] * up.values[i] * slope;
    grads.dup.values[i] = dy.values[i] * (absolute ? std::abs(g) : g) * s;
  }
  return grads;
}

// (1 + tanh(z / 2)) / 2 is the logistic function of z: twice the argument of
// GELU's tanh, and its derivative.
template <typename S>
struct GeluArgument {
  S z;
  S slope;
};

template <typename S>
GeluArgument<S> GeluArgumentOf(S x) {
  const double linear = 2.0 * std::sqrt(2.0 / std::numbers::pi);
  return {linear * (x + 0.044715 * x * x * x),
          linear * (1.0 + 3.0 * 0.044715 * x * x)};
}

template <typename S>
Matrix<S> Gelu(const Matrix<S>& x) {
  return Map(x, [](S v) { return v * Sigmoid(GeluArgumentOf(v).z); });
}

template <typename S>
Matrix<S> GeluBackward(const Matrix<S>& dy, const Matrix<S>& x) {
  Matrix<S> dx(dy.rows, dy.cols);
  for (size_t i = 0; i < dx.values.size(); ++i) {
    const auto [z, slope] = GeluArgumentOf(x.values[i]);
    const S s = Sigmoid(z);
    dx.values[i] = dy.values[i] * (s + x.values[i] * s * Sigmoid(-z) * slope);
  }
  return dx;
}

// y[i] = table[ids[i] - first_row] where that row exists, else zero.
template <typename S>
Matrix<S> GatherRows(const Matrix<S>& table, const std::vector<int32_t>& ids,
                     int64_t first_row) {
  Matrix<S> y(static_cast<int64_t>(ids.size()), table.cols);
  for (int64_t r = 0; r < y.rows; ++r) {
    const int64_t from = ids[static_cast<size_t>(r)] - first_row;
    if (from < 0 || from >= table.rows) continue;
    for (int64_t c = 0; c < y.cols; ++c) y(r, c) = table(from, c);
  }
  return y;
}

template <typename S>
Matrix<S> ScatterRows(const Matrix<S>& x, const std::vector<int32_t>& ids,
                      int64_t rows) {
  Matrix<S> y(rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) {
      y(ids[static_cast<size_t>(r)], c) = x(r, c);
    }
  }
  return y;
}

struct DropoutPlace {
  RandomField field;
  std::vector<int64_t> row_index;
  int64_t row_elements = 0;
  int64_t first_col = 0;
  double p = 0.0;
};

template <typename S>
Matrix<S> Dropout(const Matrix<S>& x, const DropoutPlace& place) {
  Matrix<S> y(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t c = 0; c < x.cols; ++c) {
      const int64_t index =
          place.row_index[static_cast<size_t>(r)] * place.row_elements +
          place.first_col + c;
      const double word = place.field.Word(static_cast<uint64_t>(index));
      if (word >= place.p * 0x1p32) y(r, c) = x(r, c) / (1.0 - place.p);
    }
  }
  return y;
}

struct AdamWState {
  double value;
  double m;
  double v;
};

// One element of PyTorch's AdamW.
inline AdamWState AdamW(const ops::AdamWStep& hyper, AdamWState state,
                        double grad) {
  const double beta1 = hyper.beta1;
  const double beta2 = hyper.beta2;
  const double g = grad * hyper.grad_scale;
  const double step = static_cast<double>(hyper.step);
  state.value *= 1.0 - double{hyper.learning_rate} * hyper.weight_decay;
  state.m = beta1 * state.m + (1.0 - beta1) * g;
  state.v = beta2 * state.v + (1.0 - beta2) * g * g;
  const double m_hat = state.m / (1.0 - std::pow(beta1, step));
  const double v_hat = state.v / (1.0 - std::pow(beta2, step));
  state.value -=
      hyper.learning_rate * m_hat / (std::sqrt(v_hat) + hyper.epsilon);
  return state;
}

}  // namespace lorica::reference

#endif  // LORICA_TESTS_SUPPORT_REFERENCE_H_
