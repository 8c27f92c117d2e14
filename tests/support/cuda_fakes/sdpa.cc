// A library of attention in plain loops, in the place of cuDNN.
#include "runtime/cuda/sdpa.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "runtime/dtype.h"
#include "tests/support/cuda_fakes/memory.h"
#include "tests/support/cuda_fakes/timeline.h"
#include "tests/support/cuda_sim/simulator.h"

namespace lorica::cuda {
namespace {

using cuda_fakes::DeviceMemory;
using cuda_fakes::Timeline;

void Report(const std::string& text) {
  Timeline::Get().Report("attention: " + text);
}

template <typename T>
T Read(const T* from) {
  DeviceMemory::Get().Access(from, sizeof(T), false);
  return *from;
}

template <typename T>
void Write(T* to, T value) {
  DeviceMemory::Get().Access(to, sizeof(T), true);
  *to = value;
  cuda_sim::MarkWritten(to, sizeof(T));
}

using Rows = std::vector<std::vector<double>>;  // [tokens][head_dim]

// One call, run when the stream comes to it.
class Computation {
 public:
  Computation(const SdpaShape& shape, const SdpaArrays& arrays)
      : shape_(shape), arrays_(arrays) {}

  void Run() const;

 private:
  void Forward(int64_t record, int64_t head, int64_t tokens) const;
  void Backward(int64_t record, int64_t kv_head, int64_t tokens) const;
  // The weights of the record's queries, [tokens][keys seen].
  Rows Scores(const Rows& q, const Rows& k) const;
  BFloat16* At(SdpaMatrix matrix, int64_t record, int64_t head,
               int64_t token) const;
  Rows Load(SdpaMatrix matrix, int64_t record, int64_t head,
            int64_t tokens) const;
  void Store(SdpaMatrix matrix, int64_t record, int64_t head,
             const Rows& rows) const;
  float* Stats(int64_t record, int64_t head) const {
    return arrays_.stats + (record * shape_.heads + head) * shape_.longest;
  }

  SdpaShape shape_;
  SdpaArrays arrays_;
};

BFloat16* Computation::At(SdpaMatrix matrix, int64_t record, int64_t head,
                          int64_t token) const {
  const size_t i = IndexOf(matrix);
  return static_cast<BFloat16*>(arrays_.matrices[i]) +
         Read(arrays_.offsets[i] + record) + token * shape_.row_strides[i] +
         head * shape_.head_dim;
}

Rows Computation::Load(SdpaMatrix matrix, int64_t record, int64_t head,
                       int64_t tokens) const {
  Rows rows;
  for (int64_t token = 0; token < tokens; ++token) {
    const BFloat16* from = At(matrix, record, head, token);
    std::vector<double>& row = rows.emplace_back();
    for (int64_t c = 0; c < shape_.head_dim; ++c) {
      row.push_back(static_cast<float>(Read(from + c)));
    }
  }
  return rows;
}

void Computation::Store(SdpaMatrix matrix, int64_t record, int64_t head,
                        const Rows& rows) const {
  for (size_t token = 0; token < rows.size(); ++token) {
    BFloat16* to = At(matrix, record, head, static_cast<int64_t>(token));
    for (size_t c = 0; c < rows[token].size(); ++c) {
      Write(to + c, BFloat16(static_cast<float>(rows[token][c])));
    }
  }
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void AddScaled(double by, const std::vector<double>& x,
               std::vector<double>* sum) {
  for (size_t i = 0; i < x.size(); ++i) (*sum)[i] += by * x[i];
}

Rows Computation::Scores(const Rows& q, const Rows& k) const {
  Rows scores(q.size());
  for (size_t i = 0; i < q.size(); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      scores[i].push_back(static_cast<double>(shape_.scale) * Dot(q[i], k[j]));
    }
  }
  return scores;
}

void Computation::Forward(int64_t record, int64_t head, int64_t tokens) const {
  const int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
  const Rows q = Load(SdpaMatrix::kQ, record, head, tokens);
  const Rows k = Load(SdpaMatrix::kK, record, kv_head, tokens);
  const Rows v = Load(SdpaMatrix::kV, record, kv_head, tokens);
  Rows out(q.size(), std::vector<double>(q.empty() ? 0 : q[0].size()));
  const Rows scores = Scores(q, k);
  for (size_t i = 0; i < q.size(); ++i) {
    double sum = 0.0;
    for (const double score : scores[i]) sum += std::exp(score);
    for (size_t j = 0; j < scores[i].size(); ++j) {
      AddScaled(std::exp(scores[i][j]) / sum, v[j], &out[i]);
    }
    Write(Stats(record, head) + i, static_cast<float>(std::log(sum)));
  }
  Store(SdpaMatrix::kOut, record, head, out);
  for (int64_t i = tokens; i < shape_.longest; ++i) {
    Write(Stats(record, head) + i, -std::numeric_limits<float>::infinity());
  }
}

void Computation::Backward(int64_t record, int64_t kv_head,
                           int64_t tokens) const {
  const Rows k = Load(SdpaMatrix::kK, record, kv_head, tokens);
  const Rows v = Load(SdpaMatrix::kV, record, kv_head, tokens);
  const Rows zero(k.size(), std::vector<double>(k.empty() ? 0 : k[0].size()));
  Rows dk = zero;
  Rows dv = zero;
  const int64_t group = shape_.heads / shape_.kv_heads;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const Rows q = Load(SdpaMatrix::kQ, record, head, tokens);
    const Rows out = Load(SdpaMatrix::kOut, record, head, tokens);
    const Rows dout = Load(SdpaMatrix::kDout, record, head, tokens);
    const Rows scores = Scores(q, k);
    Rows dq = zero;
    for (size_t i = 0; i < q.size(); ++i) {
      const double lse = Read(Stats(record, head) + i);
      const double dot = Dot(dout[i], out[i]);
      for (size_t j = 0; j < scores[i].size(); ++j) {
        const double weight = std::exp(scores[i][j] - lse);
        const double ds = static_cast<double>(shape_.scale) * weight *
                          (Dot(dout[i], v[j]) - dot);
        AddScaled(ds, k[j], &dq[i]);
        AddScaled(ds, q[i], &dk[j]);
        AddScaled(weight, dout[i], &dv[j]);
      }
    }
    Store(SdpaMatrix::kDq, record, head, dq);
    for (int64_t i = tokens; i < shape_.longest; ++i) {
      if (std::exp(-Read(Stats(record, head) + i)) != 0.0f) {
        Report("a row past the end of its record would weigh something");
      }
    }
  }
  Store(SdpaMatrix::kDk, record, kv_head, dk);
  Store(SdpaMatrix::kDv, record, kv_head, dv);
}

void Computation::Run() const {
  const bool forward = shape_.direction == Direction::kForward;
  bool ended = false;
  for (int64_t record = 0; record < shape_.records; ++record) {
    const int64_t tokens = Read(arrays_.lengths + record);
    if (tokens < 0 || tokens > shape_.longest) {
      return Report("a record is longer than the plan's longest");
    }
    if (ended && tokens > 0) Report("a record follows an empty slot");
    ended = tokens == 0;
    for (size_t i = 0; i < NumMatrices(shape_.direction); ++i) {
      const int32_t* offset = arrays_.offsets[i] + record;
      if (Read(offset) + tokens * shape_.row_strides[i] > Read(offset + 1) &&
          record + 1 < shape_.records && tokens > 0) {
        Report("a record overlaps the next");
      }
    }
    const int64_t heads = forward ? shape_.heads : shape_.kv_heads;
    for (int64_t head = 0; head < heads; ++head) {
      if (forward) {
        Forward(record, head, tokens);
      } else {
        Backward(record, head, tokens);
      }
    }
  }
}

class FakePlan : public SdpaPlan {
 public:
  FakePlan(cudaStream_t stream, const SdpaShape& shape, size_t workspace_bytes)
      : stream_(stream), shape_(shape), workspace_bytes_(workspace_bytes) {}

  size_t workspace_bytes() const override { return workspace_bytes_; }
  const std::string& engine() const override { return engine_; }
  absl::Status Run(const SdpaArrays& arrays) override {
    Timeline::Get().CountLaunch();
    const Computation computation(shape_, arrays);
    cuda_fakes::Op op = {.name = "attention", .run = [=](const auto& self) {
                           DeviceMemory::Get().BeginKernel();
                           computation.Run();
                           DeviceMemory::Get().EndKernel(self);
                         }};
    if (workspace_bytes_ > 0) {
      op.writes.push_back({arrays.workspace, workspace_bytes_});
    }
    Timeline::Get().Add(reinterpret_cast<cuda_fakes::Stream*>(stream_),
                        std::move(op));
    return absl::OkStatus();
  }

 private:
  cudaStream_t stream_;
  SdpaShape shape_;
  size_t workspace_bytes_;
  std::string engine_ = "plain loops";
};

class FakeLibrary : public SdpaLibrary {
 public:
  explicit FakeLibrary(cudaStream_t stream) : stream_(stream) {}

  absl::StatusOr<std::unique_ptr<SdpaPlan>> Plan(
      const SdpaShape& shape) override {
    const cuda_fakes::Settings& settings = Timeline::Get().settings();
    // As cuDNN has it.
    if (settings.compute_major == 8 &&
        shape.direction == Direction::kBackward &&
        shape.order == GradOrder::kFixed) {
      return absl::UnimplementedError("not in a fixed order");
    }
    return std::make_unique<FakePlan>(
        stream_, shape,
        static_cast<size_t>(shape.records) * *settings.sdpa_workspace_bytes);
  }

 private:
  cudaStream_t stream_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SdpaLibrary>> OpenSdpa(cudaStream_t stream) {
  if (!Timeline::Get().settings().sdpa_workspace_bytes.has_value()) {
    return absl::UnimplementedError("no attention in this test");
  }
  return std::make_unique<FakeLibrary>(stream);
}

}  // namespace lorica::cuda
