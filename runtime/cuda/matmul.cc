#include "runtime/cuda/matmul.h"

#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/product_choices.h"
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
// How many algorithms are measured, and how often each multiplies.
constexpr int kCandidates = 16;
constexpr int kTimedRuns = 5;

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
          .biased = args.bias.present(),
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
  explicit Plan(const MatmulArgs& args);
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {a, b, y}) {
      CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(layout));
    }
    CUBLAS_CHECK(cublasLtMatmulDescDestroy(desc));
  }

  // The library's answers, at most `wanted`, at least one.
  std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t handle,
                                               const MatmulKey& key,
                                               int wanted) const;
  // Whether the library would run it, in the workspace we have.
  bool Allows(cublasLtHandle_t handle,
              const cublasLtMatmulAlgo_t& algorithm) const;
  void Run(cublasLtHandle_t handle, Queue* queue, const MatmulArgs& args,
           void* y) const;

  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t b = nullptr;
  cublasLtMatrixLayout_t y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  uint64_t last_use = 0;
};

MatmulPlans::Plan::Plan(const MatmulArgs& args)
    : a(LayoutOf(args.a)), b(LayoutOf(args.b)), y(LayoutOf(args.y)) {
  CUBLAS_CHECK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const auto transposed = [](bool yes) {
    return yes ? CUBLAS_OP_T : CUBLAS_OP_N;
  };
  Set(desc, CUBLASLT_MATMUL_DESC_TRANSA,
      transposed(args.form == MatmulForm::kNT));
  Set(desc, CUBLASLT_MATMUL_DESC_TRANSB,
      transposed(args.form == MatmulForm::kTN));
  if (args.bias.present()) {
    Set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    Set(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, TypeOf(args.bias.dtype));
    Set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.data);
  }
}

std::vector<cublasLtMatmulAlgo_t> MatmulPlans::Plan::Candidates(
    cublasLtHandle_t handle, const MatmulKey& key, int wanted) const {
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
  cublasLtMatmulHeuristicResult_t found[kCandidates] = {};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, desc, b, a, y, y, preference, wanted, found, &count);
  CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i) {
    if (found[i].state == CUBLAS_STATUS_SUCCESS) {
      algorithms.push_back(found[i].algo);
    }
  }
  CHECK(status == CUBLAS_STATUS_SUCCESS && !algorithms.empty())
      << "cuBLASLt has no product of " << key.operand << " [" << key.m << ", "
      << key.k << "] and [" << key.k << ", " << key.n << "] in " << key.result
      << ", strides " << key.a_stride << " " << key.b_stride << " "
      << key.y_stride << ": " << cublasLtGetStatusName(status);
  return algorithms;
}

bool MatmulPlans::Plan::Allows(cublasLtHandle_t handle,
                               const cublasLtMatmulAlgo_t& wanted) const {
  cublasLtMatmulHeuristicResult_t result = {};
  return cublasLtMatmulAlgoCheck(handle, desc, b, a, y, y, &wanted, &result) ==
             CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= kWorkspaceBytes;
}

void MatmulPlans::Plan::Run(cublasLtHandle_t handle, Queue* queue,
                            const MatmulArgs& args, void* to) const {
  const float beta = args.update == Update::kAdd ? 1.0f : 0.0f;
  void* workspace = ScratchFor(queue, ScratchUse::kWorkspace, kWorkspaceBytes);
  if (args.bias.present()) {
    Set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.data);
  }
  CUBLAS_CHECK(cublasLtMatmul(handle, desc, &args.scale, args.b.data, b,
                              args.a.data, a, &beta, to, y, to, y, &algorithm,
                              workspace, kWorkspaceBytes, StreamOf(queue)));
}

namespace {

// A moment of a stream.
class Moment {
 public:
  explicit Moment(cudaStream_t stream) {
    CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDefault));
    CUDA_CHECK(cudaEventRecord(event_, stream));
  }
  ~Moment() { CUDA_CHECK(cudaEventDestroy(event_)); }
  Moment(const Moment&) = delete;
  Moment& operator=(const Moment&) = delete;

  // Waits for this moment.
  double MicrosecondsSince(const Moment& earlier) const {
    CUDA_CHECK(cudaEventSynchronize(event_));
    float milliseconds = 0.0f;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, earlier.event_, event_));
    return 1e3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

ProductChoice ChoiceOf(const cublasLtMatmulAlgo_t& algorithm,
                       double microseconds) {
  ProductChoice choice = {.microseconds = microseconds};
  static_assert(sizeof(choice.algorithm) == sizeof(algorithm));
  std::memcpy(choice.algorithm.data(), &algorithm, sizeof(algorithm));
  return choice;
}

cublasLtMatmulAlgo_t AlgorithmOf(const ProductChoice& choice) {
  cublasLtMatmulAlgo_t algorithm;
  std::memcpy(&algorithm, choice.algorithm.data(), sizeof(algorithm));
  return algorithm;
}

}  // namespace

MatmulPlans::MatmulPlans() : library_(std::make_unique<Library>()) {}

MatmulPlans::~MatmulPlans() = default;

size_t MatmulPlans::LibraryVersion() { return cublasLtGetVersion(); }

void MatmulPlans::UseChoices(std::unique_ptr<ProductChoices> choices) {
  CHECK(plans_.empty());
  choices_ = std::move(choices);
}

void MatmulPlans::Choose(Queue* queue, const MatmulArgs& args,
                         const MatmulKey& key, Plan* plan) {
  if (choices_ != nullptr) {
    if (const ProductChoice* known = choices_->Find(key)) {
      plan->algorithm = AlgorithmOf(*known);
      if (plan->Allows(library_->handle, plan->algorithm)) return;
      LOG(WARNING) << "cuBLASLt refuses a measured algorithm of [" << key.m
                   << ", " << key.k << "] and [" << key.k << ", " << key.n
                   << "]; it is not used";
    }
  }
  plan->algorithm = plan->Candidates(library_->handle, key, 1)[0];
  if (choices_ != nullptr && choices_->measures()) {
    Measure(queue, args, key, plan);
  }
}

void MatmulPlans::Measure(Queue* queue, const MatmulArgs& args,
                          const MatmulKey& key, Plan* plan) {
  const cudaStream_t stream = StreamOf(queue);
  const int64_t elements = (args.y.rows - 1) * args.y.row_stride + args.y.cols;
  const size_t bytes = static_cast<size_t>(elements) * SizeOf(args.y.dtype);
  void* y = nullptr;
  if (cudaMallocAsync(&y, bytes, stream) != cudaSuccess) {
    cudaGetLastError();  // Or the next launch would report it.
    return;
  }
  ProductChoice best = {.microseconds = INFINITY};
  for (const cublasLtMatmulAlgo_t& candidate :
       plan->Candidates(library_->handle, key, kCandidates)) {
    plan->algorithm = candidate;
    plan->Run(library_->handle, queue, args, y);
    const Moment begin(stream);
    for (int i = 0; i < kTimedRuns; ++i) {
      plan->Run(library_->handle, queue, args, y);
    }
    const Moment end(stream);
    const double microseconds = end.MicrosecondsSince(begin) / kTimedRuns;
    if (microseconds < best.microseconds) {
      best = ChoiceOf(candidate, microseconds);
    }
  }
  CUDA_CHECK(cudaFreeAsync(y, stream));
  plan->algorithm = AlgorithmOf(best);
  choices_->Add(key, best);
}

MatmulPlans::Plan& MatmulPlans::Find(Queue* queue, const MatmulArgs& args) {
  const MatmulKey key = KeyOf(args);
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    if (plans_.size() >= kCapacity) {
      plans_.erase(std::min_element(
          plans_.begin(), plans_.end(), [](const auto& a, const auto& b) {
            return a.second->last_use < b.second->last_use;
          }));
    }
    auto plan = std::make_unique<Plan>(args);
    Choose(queue, args, key, plan.get());
    found = plans_.emplace(key, std::move(plan)).first;
  }
  found->second->last_use = ++uses_;
  return *found->second;
}

void MatmulPlans::Run(Queue* queue, const MatmulArgs& args) {
  Find(queue, args).Run(library_->handle, queue, args, args.y.data);
}

void Matmul(Queue* queue, const MatmulArgs& args) {
  const int64_t k = args.form == MatmulForm::kTN ? args.a.rows : args.a.cols;
  if (args.y.elements() == 0) return;
  DCHECK(!args.bias.present() ||
         (args.form == MatmulForm::kNT && args.scale == 1.0f && k > 0));
  if (k == 0) {
    if (args.update == Update::kAssign) Fill(queue, args.y, 0.0f);
    return;
  }
  if (IsThin(args)) return ThinMatmul(queue, args);
  Of(queue)->matmuls.Run(queue, args);
}

}  // namespace lorica::cuda
