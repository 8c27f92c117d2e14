#include "runtime/files/block_decode.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/strings/string_view.h"
#include "runtime/check.h"

namespace lorica {
namespace {

template <typename T>
T Load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

float LoadHalf(const char* bytes) { return HalfToFloat(Load<uint16_t>(bytes)); }

// A codec says how many elements a block holds in how many bytes, and decodes
// one. ggml's docs/gguf.md and block layouts.
struct F32Codec {
  static constexpr int64_t kElements = 1;
  static constexpr int64_t kBytes = 4;
  static void Decode(const char* block, float* out) {
    *out = Load<float>(block);
  }
};

struct F16Codec {
  static constexpr int64_t kElements = 1;
  static constexpr int64_t kBytes = 2;
  static void Decode(const char* block, float* out) { *out = LoadHalf(block); }
};

struct BF16Codec {
  static constexpr int64_t kElements = 1;
  static constexpr int64_t kBytes = 2;
  static void Decode(const char* block, float* out) {
    *out = static_cast<float>(Load<BFloat16>(block));
  }
};

// Byte j holds element j in its low half and element j + 16 in its high one.
// The products below are exact (4 or 8 bits times 11), so it does not matter
// whether the compiler fuses the addition.
struct Q4_0Codec {
  static constexpr int64_t kElements = 32;
  static constexpr int64_t kBytes = 18;
  static void Decode(const char* block, float* out) {
    const float d = LoadHalf(block);
    for (int j = 0; j < 16; ++j) {
      const int byte = static_cast<uint8_t>(block[2 + j]);
      out[j] = static_cast<float>((byte & 15) - 8) * d;
      out[j + 16] = static_cast<float>((byte >> 4) - 8) * d;
    }
  }
};

struct Q4_1Codec {
  static constexpr int64_t kElements = 32;
  static constexpr int64_t kBytes = 20;
  static void Decode(const char* block, float* out) {
    const float d = LoadHalf(block);
    const float m = LoadHalf(block + 2);
    for (int j = 0; j < 16; ++j) {
      const int byte = static_cast<uint8_t>(block[4 + j]);
      out[j] = static_cast<float>(byte & 15) * d + m;
      out[j + 16] = static_cast<float>(byte >> 4) * d + m;
    }
  }
};

struct Q8_0Codec {
  static constexpr int64_t kElements = 32;
  static constexpr int64_t kBytes = 34;
  static void Decode(const char* block, float* out) {
    const float d = LoadHalf(block);
    for (int j = 0; j < 32; ++j) {
      out[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
    }
  }
};

template <typename Function>
void WithCodec(StoredType type, const Function& function) {
  switch (type) {
    case StoredType::kF32:
      return function(F32Codec());
    case StoredType::kF16:
      return function(F16Codec());
    case StoredType::kBF16:
      return function(BF16Codec());
    case StoredType::kQ4_0:
      return function(Q4_0Codec());
    case StoredType::kQ4_1:
      return function(Q4_1Codec());
    case StoredType::kQ8_0:
      return function(Q8_0Codec());
    default:
      LOG(FATAL) << "cannot decode " << type;
  }
}

// Whole blocks go straight to their place; those cut by the ends of `cols`
// through `values`.
template <typename Codec, typename Out>
void DecodeBlocks(const char* row, Range cols, Out* out) {
  constexpr int64_t kElements = Codec::kElements;
  float values[kElements];
  int64_t col = cols.begin;
  while (col < cols.end) {
    const int64_t block = col / kElements;
    const int64_t skip = col - block * kElements;
    const int64_t count = std::min(kElements - skip, cols.end - col);
    Codec::Decode(row + block * Codec::kBytes, values);
    if (count == kElements) {
      for (int64_t i = 0; i < kElements; ++i) {
        out[i] = static_cast<Out>(values[i]);
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        out[i] = static_cast<Out>(values[skip + i]);
      }
    }
    col += count;
    out += count;
  }
}

template <typename Out>
void Decode(StoredType type, const char* row, Range cols, Out* out) {
  WithCodec(type, [&]<typename Codec>(Codec) {
    DecodeBlocks<Codec>(row, cols, out);
  });
}

template <typename Out>
void DecodeRows(const StoredTensor& tensor, const DecodeSlice& slice,
                int64_t row_bytes, Out* out) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < slice.rows.size(); ++i) {
    const int64_t row = slice.source_row(slice.rows.begin + i);
    Decode(tensor.type, tensor.bytes.data() + row * row_bytes, slice.cols,
           out + i * slice.cols.size());
  }
}

// The stored rows from the first to the last that `slice` reads.
absl::string_view SourceBytes(const StoredTensor& tensor,
                              const DecodeSlice& slice, int64_t row_bytes) {
  int64_t first = std::numeric_limits<int64_t>::max();
  int64_t end = 0;
  for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
    first = std::min(first, slice.source_row(row));
    end = std::max(end, slice.source_row(row) + 1);
  }
  return end == 0 ? absl::string_view()
                  : tensor.bytes.substr(first * row_bytes,
                                        (end - first) * row_bytes);
}

}  // namespace

bool CanDecode(StoredType type) {
  switch (type) {
    case StoredType::kF32:
    case StoredType::kF16:
    case StoredType::kBF16:
    case StoredType::kQ4_0:
    case StoredType::kQ4_1:
    case StoredType::kQ8_0:
      return true;
    default:
      return false;
  }
}

void DecodeRow(StoredType type, const char* row, Range cols, float* out) {
  Decode(type, row, cols, out);
}

void DecodeRow(StoredType type, const char* row, Range cols, BFloat16* out) {
  Decode(type, row, cols, out);
}

void DecodeMatrix(const StoredTensor& tensor, const DecodeSlice& slice,
                  DType dtype, void* out) {
  const int64_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
  const int64_t row_bytes =
      rows == 0 ? 0 : static_cast<int64_t>(tensor.bytes.size()) / rows;
  CHECK_LE(slice.rows.end, rows);
  CHECK_LE(slice.cols.end, tensor.shape.back());
  const absl::string_view source = SourceBytes(tensor, slice, row_bytes);
  tensor.file->WillRead(source);
  if (dtype == DType::kF32) {
    DecodeRows(tensor, slice, row_bytes, static_cast<float*>(out));
  } else {
    CHECK_EQ(dtype, DType::kBF16);
    DecodeRows(tensor, slice, row_bytes, static_cast<BFloat16*>(out));
  }
  tensor.file->Release(source);
}

}  // namespace lorica
