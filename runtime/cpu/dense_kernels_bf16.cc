#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/cpu/avx512-inl.h"
#include "runtime/cpu/dense_kernels.h"

namespace lorica::cpu {
namespace {

constexpr int64_t kVector = 16;  // Words of a vector, two to a row of a panel.
constexpr int64_t kPrefetchRows = 24;

// 16 columns of a panel, from 16 rows of b, `lines` of which exist.
void PackHalfNT(const uint16_t* b, int64_t stride, int64_t lines,
                int64_t length, uint32_t* panel) {
  for (int64_t k = 0; k < length; k += 2 * kVector) {
    const __mmask32 present = FirstHalves(length - k);
    __m512i words[kVector];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kVector; ++i) {
      words[i] = i < lines
                     ? _mm512_maskz_loadu_epi16(present, b + i * stride + k)
                     : _mm512_setzero_si512();
    }
    Transpose(words);
    const int64_t pairs = std::min((length - k) / 2, kVector);
    uint32_t* to = panel + k / 2 * kPanelCols;
#pragma GCC unroll 16
    for (int64_t i = 0; i < kVector; ++i) {
      if (i < pairs) _mm512_store_si512(to + i * kPanelCols, words[i]);
    }
  }
}

}  // namespace

void PackPanelNT(const View& b, Range depth, int64_t first_col,
                 uint32_t* panel) {
  for (int64_t half = 0; half < kPanelCols; half += kVector) {
    const int64_t row = std::min(first_col + half, b.rows);
    PackHalfNT(b.As<const uint16_t>() + row * b.row_stride + depth.begin,
               b.row_stride, b.rows - row, depth.size(), panel + half);
  }
}

void PackPanelNN(const View& b, Range depth, int64_t first_col,
                 uint32_t* panel) {
  const __m512i low = InterleaveLow();
  const __m512i high = InterleaveHigh();
  const __mmask32 present = FirstHalves(b.cols - first_col);
  const uint16_t* from = b.As<const uint16_t>() + first_col;
  for (int64_t k = depth.begin; k < depth.end; k += 2) {
    // The rows lie too far apart for the processor to see the next one coming.
    const int64_t ahead = std::min(k + kPrefetchRows, depth.end - 2);
    _mm_prefetch(from + ahead * b.row_stride + 31, _MM_HINT_T0);
    _mm_prefetch(from + (ahead + 1) * b.row_stride + 31, _MM_HINT_T0);
    const __m512i upper =
        _mm512_maskz_loadu_epi16(present, from + k * b.row_stride);
    const __m512i lower =
        _mm512_maskz_loadu_epi16(present, from + (k + 1) * b.row_stride);
    uint32_t* to = panel + (k - depth.begin) / 2 * kPanelCols;
    _mm512_store_si512(to, _mm512_permutex2var_epi16(upper, low, lower));
    _mm512_store_si512(to + kVector,
                       _mm512_permutex2var_epi16(upper, high, lower));
  }
}

namespace {

__m512 LoadLanes(const View& v, int64_t row, int64_t col, __mmask16 lanes) {
  if (v.dtype == DType::kF32) {
    return _mm512_maskz_loadu_ps(lanes, v.Row<const float>(row) + col);
  }
  const __m256i halves =
      _mm256_maskz_loadu_epi16(lanes, v.Row<const uint16_t>(row) + col);
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

void StoreLanes(const View& v, int64_t row, int64_t col, __mmask16 lanes,
                __m512 sum) {
  if (v.dtype == DType::kF32) {
    _mm512_mask_storeu_ps(v.Row<float>(row) + col, lanes, sum);
  } else {
    _mm256_mask_storeu_epi16(v.Row<uint16_t>(row) + col, lanes,
                             (__m256i)_mm512_cvtneps_pbh(sum));
  }
}

__m512bh Pair(const uint16_t* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return (__m512bh)_mm512_set1_epi32(bits);
}

// Adds the products of kRows rows of `a` with `pairs` rows of a panel.
template <int kRows>
inline void AddPairs(const uint16_t* a, int64_t stride, int64_t pairs,
                     const uint32_t* panel, __m512 (&sum)[kRows][2]) {
  // Three rows from each of few pointers: that many registers there are.
  constexpr int kGroups = (kRows + 2) / 3;
  const uint16_t* rows[kGroups];
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) rows[g] = a + 3 * g * stride;
  for (int64_t i = 0; i < pairs; ++i, panel += kPanelCols) {
    const auto left = (__m512bh)_mm512_load_si512(panel);
    const auto right = (__m512bh)_mm512_load_si512(panel + kVector);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = Pair(rows[r / 3] + r % 3 * stride);
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, left);
      sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, right);
    }
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) rows[g] += 2;
  }
}

template <int kRows>
void SumBlock(const PanelSum& on, int64_t row) {
  const __mmask16 lanes[2] = {FirstLanes(on.y.cols),
                              FirstLanes(on.y.cols - kVector)};
  __m512 sum[kRows][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) sum[r][v] = _mm512_setzero_ps();
  }
  const uint32_t* panel = on.panel;
  for (int64_t t = 0; t < on.num_terms; ++t) {
    const PanelTerm& term = on.terms[t];
    AddPairs<kRows>(term.a.Row<const uint16_t>(row) + term.depth.begin,
                    term.a.row_stride, term.depth.size() / 2, panel, sum);
    panel += term.depth.size() / 2 * kPanelCols;
  }
  __m512 bias[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  if (on.bias.present()) {
    for (int v = 0; v < 2; ++v) {
      bias[v] = LoadLanes(on.bias, 0, v * kVector, lanes[v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      sum[r][v] = _mm512_add_ps(sum[r][v], bias[v]);
      if (on.base.present()) {
        sum[r][v] = _mm512_add_ps(
            LoadLanes(on.base, row + r, v * kVector, lanes[v]), sum[r][v]);
      }
      StoreLanes(on.y, row + r, v * kVector, lanes[v], sum[r][v]);
    }
  }
}

}  // namespace

void SumRows(const PanelSum& sum, Range rows) {
  int64_t row = rows.begin;
  for (; row + 12 <= rows.end; row += 12) SumBlock<12>(sum, row);
  for (; row + 8 <= rows.end; row += 8) SumBlock<8>(sum, row);
  for (; row + 4 <= rows.end; row += 4) SumBlock<4>(sum, row);
  for (; row < rows.end; ++row) SumBlock<1>(sum, row);
}

}  // namespace lorica::cpu
