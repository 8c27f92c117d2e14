#include "runtime/cuda/matmul.h"

#include <cublasLt.h>

#include <algorithm>

#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/queue.h"

// cuBLASLt counts columns first. A row-major matrix [R, C] is its column-major
// matrix of C rows and R columns, so y = op(a) op(b) is asked for as
// y' = op(b)' op(a)', the operands in the other order.

namespace lorica::cuda {
namespace {

#define CUBLAS_CHECK(call)                                        \
  do {                                                            \
    const cublasStatus_t cublas_status = (call);                  \
    CHECK(cublas_status == CUBLAS_STATUS_SUCCESS)                 \
        << #call << ": " << cublasLtGetStatusName(cublas_status); \
  } while (false)

constexpr int kBestAlignment = 256;

int AlignmentOf(const View& v) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(v.data) |
                        static_cast<uint64_t>(v.row_stride) * SizeOf(v.dtype) |
                        kBestAlignment;
  return static_cast<int>(bits & (~bits + 1));
}

MatmulKey KeyOf(const MatmulArgs& args) {
  const bool tn = args.form == MatmulForm::kTN;
  return {.form = args.form,
          .operand = args.a.dtype,
          .result = args.y.dtype,
          .update = args.update,
          .m = args.y.rows,
          .n = args.y.cols,
          .k = tn ? args.a.rows : args.a.cols,
          .a_stride = args.a.row_stride,
          .b_stride = args.b.row_stride,
          .y_stride = args.y.row_stride,
          .a_alignment = AlignmentOf(args.a),
          .b_alignment = AlignmentOf(args.b),
          .y_alignment = AlignmentOf(args.y)};
}

cudaDataType TypeOf(DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << dtype;
  return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}

// The column-major layout of a row-major view. A matrix of one row may have any
// stride.
cublasLtMatrixLayout_t LayoutOf(const View& v) {
  cublasLtMatrixLayout_t layout = nullptr;
  CUBLAS_CHECK(cublasLtMatrixLayoutCreate(
      &layout, TypeOf(v.dtype), static_cast<uint64_t>(v.cols),
      static_cast<uint64_t>(v.rows), std::max(v.row_stride, v.cols)));
  return layout;
}

template <typename T>
void Set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
         T value) {
  CUBLAS_CHECK(
      cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof(value)));
}

template <typename T>
void Set(cublasLtMatmulPreference_t preference,
         cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, attribute,
                                                    &value, sizeof(value)));
}

}  // namespace

struct MatmulPlans::Library {
  Library() { CUBLAS_CHECK(cublasLtCreate(&handle)); }
  ~Library() { CUBLAS_CHECK(cublasLtDestroy(handle)); }

  cublasLtHandle_t handle = nullptr;
};

struct MatmulPlans::Plan {
  Plan(cublasLtHandle_t handle, const MatmulArgs& args, const MatmulKey& key);
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {a, b, y}) {
      CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(layout));
    }
    CUBLAS_CHECK(cublasLtMatmulDescDestroy(desc));
  }

  void Choose(cublasLtHandle_t handle, const MatmulKey& key);

  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t b = nullptr;
  cublasLtMatrixLayout_t y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  uint64_t last_use = 0;
};

MatmulPlans::Plan::Plan(cublasLtHandle_t handle, const MatmulArgs& args,
                        const MatmulKey& key)
    : a(LayoutOf(args.a)), b(LayoutOf(args.b)), y(LayoutOf(args.y)) {
  CUBLAS_CHECK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const auto transposed = [](bool yes) {
    return yes ? CUBLAS_OP_T : CUBLAS_OP_N;
  };
  Set(desc, CUBLASLT_MATMUL_DESC_TRANSA,
      transposed(args.form == MatmulForm::kNT));
  Set(desc, CUBLASLT_MATMUL_DESC_TRANSB,
      transposed(args.form == MatmulForm::kTN));
  Choose(handle, key);
}

void MatmulPlans::Plan::Choose(cublasLtHandle_t handle, const MatmulKey& key) {
  cublasLtMatmulPreference_t preference = nullptr;
  CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // No partial sums in BF16.
  Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE |
                            CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      static_cast<uint32_t>(key.b_alignment));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      static_cast<uint32_t>(key.a_alignment));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      static_cast<uint32_t>(key.y_alignment));
  Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
      static_cast<uint32_t>(key.y_alignment));
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, desc, b, a, y, y, preference, 1, &found, &count);
  CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
  CHECK(status == CUBLAS_STATUS_SUCCESS && count == 1)
      << "cuBLASLt has no product of " << key.operand << " [" << key.m << ", "
      << key.k << "] and [" << key.k << ", " << key.n << "] in " << key.result
      << ", strides " << key.a_stride << " " << key.b_stride << " "
      << key.y_stride << ": " << cublasLtGetStatusName(status);
  algorithm = found.algo;
}

MatmulPlans::MatmulPlans() : library_(std::make_unique<Library>()) {}

MatmulPlans::~MatmulPlans() = default;

MatmulPlans::Plan& MatmulPlans::Find(const MatmulArgs& args) {
  const MatmulKey key = KeyOf(args);
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    if (plans_.size() >= kCapacity) {
      plans_.erase(std::min_element(
          plans_.begin(), plans_.end(), [](const auto& a, const auto& b) {
            return a.second->last_use < b.second->last_use;
          }));
    }
    found =
        plans_.emplace(key, std::make_unique<Plan>(library_->handle, args, key))
            .first;
  }
  found->second->last_use = ++uses_;
  return *found->second;
}

void MatmulPlans::Run(Queue* queue, const MatmulArgs& args) {
  const Plan& plan = Find(args);
  const float beta = args.update == Update::kAdd ? 1.0f : 0.0f;
  void* workspace = ScratchFor(queue, ScratchUse::kWorkspace, kWorkspaceBytes);
  CUBLAS_CHECK(cublasLtMatmul(
      library_->handle, plan.desc, &args.scale, args.b.data, plan.b,
      args.a.data, plan.a, &beta, args.y.data, plan.y, args.y.data, plan.y,
      &plan.algorithm, workspace, kWorkspaceBytes, StreamOf(queue)));
}

void Matmul(Queue* queue, const MatmulArgs& args) {
  const int64_t k = args.form == MatmulForm::kTN ? args.a.rows : args.a.cols;
  if (args.y.elements() == 0) return;
  if (k == 0) {
    if (args.update == Update::kAssign) Fill(queue, args.y, 0.0f);
    return;
  }
  if (IsThin(args)) return ThinMatmul(queue, args);
  Of(queue)->matmuls.Run(queue, args);
}

}  // namespace lorica::cuda
