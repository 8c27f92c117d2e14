// The functions of cuBLASLt that lorica calls, in plain loops.
#include <cublasLt.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/dtype.h"
#include "tests/support/cuda_fakes/timeline.h"
#include "tests/support/cuda_sim/simulator.h"

namespace {

using lorica::BFloat16;
using lorica::cuda_fakes::Op;
using lorica::cuda_fakes::Region;
using lorica::cuda_fakes::Stream;
using lorica::cuda_fakes::Timeline;

struct Desc {
  cublasOperation_t a = CUBLAS_OP_N;
  cublasOperation_t b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  cudaDataType bias_type = CUDA_R_32F;
  const void* bias = nullptr;

  bool biased() const { return epilogue == CUBLASLT_EPILOGUE_BIAS; }
};

// Column-major.
struct Layout {
  cudaDataType type;
  uint64_t rows;
  uint64_t cols;
  int64_t stride;

  size_t element_bytes() const { return type == CUDA_R_32F ? 4 : 2; }
  size_t bytes() const {
    return ((cols - 1) * static_cast<size_t>(stride) + rows) * element_bytes();
  }
};

struct Preference {
  uint64_t workspace = 0;
  uint32_t alignments[4] = {256, 256, 256, 256};  // A, B, C, D.
};

// What a heuristic's answer stands for.
struct Algorithm {
  uint32_t mark;
  uint32_t alignments[4];
  uint32_t number;  // Of Settings::product_microseconds.
};
constexpr uint32_t kMark = 0x10f1ca;
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

const Desc& Of(cublasLtMatmulDesc_t desc) {
  return *reinterpret_cast<const Desc*>(desc);
}
const Layout& Of(cublasLtMatrixLayout_t layout) {
  return *reinterpret_cast<const Layout*>(layout);
}

void Report(const char* text) {
  Timeline::Get().Report(std::string("cublasLtMatmul: ") + text);
}

// The matrix as rows of floats, transposed if asked for.
std::vector<float> Rows(const void* data, const Layout& layout,
                        bool transposed) {
  std::vector<float> values(layout.rows * layout.cols);
  for (uint64_t c = 0; c < layout.cols; ++c) {
    for (uint64_t r = 0; r < layout.rows; ++r) {
      const size_t from = c * static_cast<size_t>(layout.stride) + r;
      const float value =
          layout.type == CUDA_R_32F
              ? static_cast<const float*>(data)[from]
              : static_cast<float>(static_cast<const BFloat16*>(data)[from]);
      values[transposed ? c * layout.rows + r : r * layout.cols + c] = value;
    }
  }
  return values;
}

struct Product {
  Desc desc;
  Layout a_layout;
  Layout b_layout;
  Layout d_layout;
  const void* a;
  const void* b;
  void* d;
  float alpha;
  float beta;

  uint64_t k() const {
    return desc.a == CUBLAS_OP_T ? a_layout.rows : a_layout.cols;
  }
  // A column of as many rows as d has.
  Layout BiasLayout() const {
    return {desc.bias_type, d_layout.rows, 1,
            static_cast<int64_t>(d_layout.rows)};
  }
  bool ShapesAgree() const;
  void Run() const;
};

bool Product::ShapesAgree() const {
  const bool ta = desc.a == CUBLAS_OP_T;
  const bool tb = desc.b == CUBLAS_OP_T;
  return (ta ? a_layout.cols : a_layout.rows) == d_layout.rows &&
         (tb ? b_layout.rows : b_layout.cols) == d_layout.cols &&
         (tb ? b_layout.cols : b_layout.rows) == k() &&
         a_layout.stride >= static_cast<int64_t>(a_layout.rows) &&
         b_layout.stride >= static_cast<int64_t>(b_layout.rows) &&
         d_layout.stride >= static_cast<int64_t>(d_layout.rows);
}

void Product::Run() const {
  // Rows of op(a) and columns of op(b), each dense in K.
  const std::vector<float> rows = Rows(a, a_layout, desc.a == CUBLAS_OP_T);
  const std::vector<float> cols = Rows(b, b_layout, desc.b != CUBLAS_OP_T);
  const uint64_t depth = k();
  std::vector<float> bias(d_layout.rows);
  if (desc.biased()) {
    bias = Rows(desc.bias, BiasLayout(), false);
  }
  for (uint64_t c = 0; c < d_layout.cols; ++c) {
    for (uint64_t r = 0; r < d_layout.rows; ++r) {
      float sum = 0.0f;
      for (uint64_t i = 0; i < depth; ++i) {
        sum += rows[r * depth + i] * cols[c * depth + i];
      }
      const size_t at = c * static_cast<size_t>(d_layout.stride) + r;
      if (d_layout.type == CUDA_R_32F) {
        float& to = static_cast<float*>(d)[at];
        to = bias[r] + (beta == 0.0f ? alpha * sum : alpha * sum + beta * to);
      } else {
        BFloat16& to = static_cast<BFloat16*>(d)[at];
        to = BFloat16(bias[r] +
                      (beta == 0.0f
                           ? alpha * sum
                           : alpha * sum + beta * static_cast<float>(to)));
      }
    }
    const size_t column = c * static_cast<size_t>(d_layout.stride);
    lorica::cuda_sim::MarkWritten(
        static_cast<char*>(d) + column * d_layout.element_bytes(),
        d_layout.rows * d_layout.element_bytes());
  }
}

const std::vector<double>& ProductTimes() {
  return Timeline::Get().settings().product_microseconds;
}

bool Aligned(const void* data, const Layout& layout, uint32_t alignment) {
  const uint64_t bits =
      reinterpret_cast<uintptr_t>(data) |
      static_cast<uint64_t>(layout.stride) * layout.element_bytes();
  return bits % alignment == 0;
}

}  // namespace

extern "C" {

const char* cublasLtGetStatusName(cublasStatus_t) { return "fake status"; }

size_t cublasLtGetVersion() {
  return Timeline::Get().settings().cublas_lt_version;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc,
                                        cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *desc = reinterpret_cast<cublasLtMatmulDesc_t>(new Desc);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete reinterpret_cast<Desc*>(desc);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
    const void* value, size_t bytes) {
  Desc& to = *reinterpret_cast<Desc*>(desc);
  const auto set = [&](auto* field) {
    if (bytes != sizeof(*field)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(&to.a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(&to.b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(&to.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(&to.bias_type);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(&to.bias);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout,
                                          cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t stride) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{type, rows, cols, stride});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(
    cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(
    cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<Preference*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t preference,
    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
    size_t bytes) {
  Preference& to = *reinterpret_cast<Preference*>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      if (bytes != 8) return CUBLAS_STATUS_INVALID_VALUE;
      std::memcpy(&to.workspace, value, bytes);
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return bytes == 4 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      if (bytes != 4) return CUBLAS_STATUS_INVALID_VALUE;
      std::memcpy(&to.alignments[attribute -
                                 CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                  value, bytes);
      return CUBLAS_STATUS_SUCCESS;
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
    cublasLtMatmulPreference_t preference, int wanted,
    cublasLtMatmulHeuristicResult_t* results, int* found) {
  if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  const Preference& from = *reinterpret_cast<const Preference*>(preference);
  Algorithm algorithm = {.mark = kMark};
  std::memcpy(algorithm.alignments, from.alignments, sizeof(from.alignments));
  *found = std::min(wanted, static_cast<int>(ProductTimes().size()));
  for (int i = 0; i < *found; ++i) {
    algorithm.number = static_cast<uint32_t>(i);
    results[i] = {};
    std::memcpy(&results[i].algo, &algorithm, sizeof(algorithm));
    results[i].workspaceSize = from.workspace;
    results[i].state = CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(
    cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
    const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  Algorithm algorithm;
  std::memcpy(&algorithm, algo, sizeof(algorithm));
  *result = {};
  return algorithm.mark == kMark && algorithm.number < ProductTimes().size()
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                              const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  Product product = {Of(desc), Of(a_layout), Of(b_layout), Of(d_layout), a, b,
                     d};
  std::memcpy(&product.alpha, alpha, sizeof(float));
  std::memcpy(&product.beta, beta, sizeof(float));
  if (!product.ShapesAgree() || c != d) {
    Report("shapes disagree");
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  Algorithm algorithm;
  std::memcpy(&algorithm, algo, sizeof(algorithm));
  if (algorithm.mark != kMark || algorithm.number >= ProductTimes().size() ||
      !Aligned(a, product.a_layout, algorithm.alignments[0]) ||
      !Aligned(b, product.b_layout, algorithm.alignments[1]) ||
      !Aligned(d, product.d_layout, algorithm.alignments[3])) {
    Report("an operand is not aligned as its algorithm was promised");
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  Timeline::Get().CountLaunch();
  Op op = {.name = "cublasLtMatmul"};
  op.reads = {{a, product.a_layout.bytes()}, {b, product.b_layout.bytes()}};
  op.writes = {{d, product.d_layout.bytes()}, {workspace, workspace_bytes}};
  if (product.beta != 0.0f) op.reads.push_back(op.writes[0]);
  if (product.desc.biased()) {
    // Of a type that the library adds in an epilogue.
    if (product.desc.bias_type != product.d_layout.type) {
      Report("the bias has another type than the result");
      return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    op.reads.push_back({product.desc.bias, product.BiasLayout().bytes()});
  }
  op.run = [product, time = ProductTimes()[algorithm.number]](const Op&) {
    product.Run();
    Timeline::Get().Spend(time);
  };
  Timeline::Get().Add(reinterpret_cast<Stream*>(stream), std::move(op));
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
