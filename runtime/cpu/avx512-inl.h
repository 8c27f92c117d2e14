// BF16 in AVX-512 registers, and products of packed tiles. Only for files
// compiled for AVX-512 BF16; everything has internal linkage, so that no other
// file can come to run this code.
#ifndef LORICA_RUNTIME_CPU_AVX512_INL_H_
#define LORICA_RUNTIME_CPU_AVX512_INL_H_

#include <immintrin.h>

#include <cstdint>

#include "runtime/cpu/attention/tiles.h"

namespace lorica::cpu {
namespace {

// The first `count` lanes; none below zero, all from the width on.
inline __mmask16 FirstLanes(int64_t count) {
  return count >= 16  ? __mmask16{0xffff}
         : count <= 0 ? __mmask16{0}
                      : static_cast<__mmask16>((1u << count) - 1);
}
inline __mmask32 FirstHalves(int64_t count) {
  return count >= 32  ? ~__mmask32{0}
         : count <= 0 ? __mmask32{0}
                      : (__mmask32{1} << count) - 1;
}

// 2^x, relative error 1e-7; zero where x is very negative.
inline __m512 Exp2(__m512 x) {
  const __m512 n =
      _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  // Minimax on [-1/2, 1/2].
  __m512 p = _mm512_set1_ps(1.327647198e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.675541334e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550713274e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402211972e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931469671e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.000000072f));
  return _mm512_scalef_ps(p, n);
}

// Two rows of 16 lanes as a right operand holds them: element by element.
inline __m512i Interleave(__m512bh low_high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11,
                                         26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)low_high);
}

// The places from which permutex2var interleaves two rows of 32 elements: the
// first 16 pairs, and the others.
inline __m512i InterleaveLow() {
  return _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9,
                          40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33,
                          1, 32, 0);
}
inline __m512i InterleaveHigh() {
  return _mm512_add_epi16(InterleaveLow(), _mm512_set1_epi16(16));
}

// What a product does to what its result held.
enum class Before : uint8_t { kReplace, kAdd, kDecay };

// The operands of a product that share a panel; strides are in elements, in
// pairs for b.
struct PanelOperands {
  const uint16_t* a;
  int64_t a_stride;
  const uint32_t* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  const float* decay;  // Per lane, with kDecay.
};

// kRowStep rows of `kVectors` vectors over `pairs` steps of two.
template <int kVectors, Before kBefore>
inline void ProductBlock(const PanelOperands& on, int64_t pairs) {
  __m512 sum[kRowStep][kVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRowStep; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const float* c = on.c + r * on.c_stride + 16 * v;
      sum[r][v] = kBefore == Before::kReplace ? _mm512_setzero_ps()
                                              : _mm512_loadu_ps(c);
      if (kBefore == Before::kDecay) {
        sum[r][v] =
            _mm512_mul_ps(sum[r][v], _mm512_loadu_ps(on.decay + 16 * v));
      }
    }
  }
  const auto* a = reinterpret_cast<const int32_t*>(on.a);
  const int64_t a_stride = on.a_stride / 2;
  const uint32_t* b = on.b;
  for (int64_t i = 0; i < pairs; ++i, b += on.b_stride) {
    __m512bh right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      right[v] = (__m512bh)_mm512_loadu_si512(b + 16 * v);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRowStep; ++r) {
      const auto left = (__m512bh)_mm512_set1_epi32(a[r * a_stride + i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], left, right[v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRowStep; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      _mm512_storeu_ps(on.c + r * on.c_stride + 16 * v, sum[r][v]);
    }
  }
}

template <int kVectors, Before kBefore>
inline void PanelRows(PanelOperands on, int64_t m, int64_t pairs) {
  for (int64_t row = 0; row < m; row += kRowStep) {
    ProductBlock<kVectors, kBefore>(on, pairs);
    on.a += kRowStep * on.a_stride;
    on.c += kRowStep * on.c_stride;
  }
}

// C [m, n] of a panel: m a multiple of kRowStep, n of kLanes up to 64, k even.
template <Before kBefore>
inline void PanelProduct(const PanelOperands& on, int64_t m, int64_t n,
                         int64_t k) {
  switch (n / kLanes) {
    case 1:
      return PanelRows<1, kBefore>(on, m, k / 2);
    case 2:
      return PanelRows<2, kBefore>(on, m, k / 2);
    case 3:
      return PanelRows<3, kBefore>(on, m, k / 2);
    default:
      return PanelRows<4, kBefore>(on, m, k / 2);
  }
}

// C [m, n] += A [m, 64] B [64, n], a right operand, over the columns and rows k
// alone.
inline void AddProduct(const PanelOperands& on, int64_t m, int64_t n, Range k) {
  for (int64_t col = 0; col < n; col += kTile) {
    const int64_t width = n - col < kTile ? n - col : kTile;
    PanelOperands panel = on;
    panel.a += k.begin;
    panel.b += col * kTile / 2 + k.begin / 2 * width;
    panel.b_stride = width;
    panel.c += col;
    PanelProduct<Before::kAdd>(panel, m, width, k.size());
  }
}

// Transposes 16 vectors of 16 words.
inline void Transpose(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int j = 4 * i;
    r[j] = _mm512_unpacklo_epi64(t[j], t[j + 2]);
    r[j + 1] = _mm512_unpackhi_epi64(t[j], t[j + 2]);
    r[j + 2] = _mm512_unpacklo_epi64(t[j + 1], t[j + 3]);
    r[j + 3] = _mm512_unpackhi_epi64(t[j + 1], t[j + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

}  // namespace
}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_AVX512_INL_H_
