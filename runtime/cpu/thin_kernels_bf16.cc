#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "runtime/cpu/avx512-inl.h"
#include "runtime/cpu/thin_kernels.h"

namespace lorica::cpu {
namespace {

void StoreHalves(uint16_t* p, __mmask16 lanes, __m512 v) {
  _mm256_mask_storeu_epi16(p, lanes, (__m256i)_mm512_cvtneps_pbh(v));
}

// The `step` elements of a row of x from element k on, zero past its end, as a
// left operand: one pair in all lanes, or two in turn.
template <int kStep>
inline __m512bh LoadLeft(const uint16_t* x, int64_t k, int64_t cols) {
  uint64_t bits = 0;
  if (k + kStep <= cols) {
    std::memcpy(&bits, x + k, 2 * kStep);
  } else {
    std::memcpy(&bits, x + k, static_cast<size_t>(2 * (cols - k)));
  }
  return kStep == 4 ? (__m512bh)_mm512_set1_epi64(static_cast<int64_t>(bits))
                    : (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(bits));
}

// Stores a row's sums: of neighbouring lanes where two pairs share a vector.
template <int kStep>
inline void StoreProjection(const ThinProjection& on, int64_t row, int vector,
                            __m512 sum) {
  if (kStep == 4) {
    sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0xb1));
    sum = _mm512_maskz_compress_ps(0x5555, sum);
  }
  sum = _mm512_mul_ps(sum, _mm512_set1_ps(on.scale));
  const int64_t col = 16 * vector;
  const __mmask16 lanes = FirstLanes(on.y.cols - col);
  const int64_t at = row * on.y.row_stride + col;
  if (on.y.dtype == DType::kBF16) {
    StoreHalves(static_cast<uint16_t*>(on.y.data) + at, lanes, sum);
  } else {
    _mm512_mask_storeu_ps(static_cast<float*>(on.y.data) + at, lanes, sum);
  }
}

template <int kRows, int kVectors, int kStep>
void ProjectBlock(const ThinProjection& on, int64_t row) {
  const auto* x =
      static_cast<const uint16_t*>(on.x.data) + row * on.x.row_stride;
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_setzero_ps();
  }
  const uint32_t* w = on.w;
  for (int64_t k = 0; k < on.x.cols; k += kStep, w += 16 * kVectors) {
    __m512bh right[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      right[v] = (__m512bh)_mm512_loadu_si512(w + 16 * v);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh left =
          LoadLeft<kStep>(x + r * on.x.row_stride, k, on.x.cols);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], left, right[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      StoreProjection<kStep>(on, row + r, v, sum[r][v]);
    }
  }
}

template <int kVectors, int kStep>
void ProjectRange(const ThinProjection& on, Range rows) {
  int64_t row = rows.begin;
  for (; row + 8 <= rows.end; row += 8) {
    ProjectBlock<8, kVectors, kStep>(on, row);
  }
  for (; row < rows.end; ++row) ProjectBlock<1, kVectors, kStep>(on, row);
}

// Elements `col` .. `col` + 31 of a row of x, zero past the end of either.
inline __m512i LoadCols(const View& x, int64_t row, int64_t col) {
  if (row >= x.rows) return _mm512_setzero_si512();
  const auto* from =
      static_cast<const uint16_t*>(x.data) + row * x.row_stride + col;
  return _mm512_maskz_loadu_epi16(FirstHalves(x.cols - col), from);
}

// kGradientRows rows from `first` and 32 columns of y.
void AddGradientBlock(const ThinGradient& on, int64_t first, int64_t col) {
  const __m512i low = InterleaveLow();
  const __m512i high = InterleaveHigh();
  __m512 sum[kGradientRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kGradientRows; ++r) {
    sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  }
  const uint32_t* u = on.u + first * on.pairs;
  for (int64_t p = 0; p < on.pairs; ++p) {
    const __m512i even = LoadCols(on.x, 2 * p, col);
    const __m512i odd = LoadCols(on.x, 2 * p + 1, col);
    const auto x0 = (__m512bh)_mm512_permutex2var_epi16(even, low, odd);
    const auto x1 = (__m512bh)_mm512_permutex2var_epi16(even, high, odd);
#pragma GCC unroll 8
    for (int r = 0; r < kGradientRows; ++r) {
      const auto left = (__m512bh)_mm512_set1_epi32(
          static_cast<int32_t>(u[r * on.pairs + p]));
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], left, x0);
      sum[r][1] = _mm512_dpbf16_ps(sum[r][1], left, x1);
    }
  }
  alignas(64) float block[kGradientRows][kGradientCols];
#pragma GCC unroll 8
  for (int r = 0; r < kGradientRows; ++r) {
    _mm512_store_ps(block[r], sum[r][0]);
    _mm512_store_ps(block[r] + 16, sum[r][1]);
  }
  const int64_t rows =
      on.rows - first < kGradientRows ? on.rows - first : kGradientRows;
  const int64_t cols =
      on.x.cols - col < kGradientCols ? on.x.cols - col : kGradientCols;
  for (int64_t r = 0; r < rows; ++r) {
    float* y = on.y + (first + r) * on.row_step + col * on.col_step;
    for (int64_t c = 0; c < cols; ++c) {
      y[c * on.col_step] += on.scale * block[r][c];
    }
  }
}

}  // namespace

void ProjectRows(const ThinProjection& projection, Range rows) {
  if (projection.step == 4) {
    ProjectRange<1, 4>(projection, rows);
  } else if (projection.lanes == 16) {
    ProjectRange<1, 2>(projection, rows);
  } else {
    ProjectRange<2, 2>(projection, rows);
  }
}

void AddGradientCols(const ThinGradient& gradient, Range cols) {
  for (int64_t col = cols.begin; col < cols.end; col += kGradientCols) {
    for (int64_t first = 0; first < gradient.rows; first += kGradientRows) {
      AddGradientBlock(gradient, first, col);
    }
  }
}

}  // namespace lorica::cpu
