// cuDNN's attention for the shapes of models, planned down to compiled kernels
// by the real library for devices that are not here: their properties are
// given as JSON and the driver is fake_driver.cc. Says whether cuDNN takes a
// shape, with which engine and how much workspace; runs nothing.
#include <cudnn_frontend.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

namespace lorica {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

// A packed row: so many records of at most so many tokens.
constexpr int64_t kRecords = 8;
constexpr int64_t kTokens = 2048;

struct Architecture {
  const char* name;
  int sm;
  const char* json;  // What differs between devices.
};

// From the data sheets; the heuristics need them roughly.
constexpr Architecture kArchitectures[] = {
    {"A100", 80,
     R"("multiProcessorCount":108,"maxSharedMemoryPerBlockOptin":166912,)"
     R"("totalGlobalMem":85094825984,"smClockRateKHz":1410000,)"
     R"("memClockRateKHz":1593000,"l2CacheSize":41943040,"deviceVer":800,)"
     R"("deviceName":"NVIDIA A100-SXM4-80GB")"},
    {"H200", 90,
     R"("multiProcessorCount":132,"maxSharedMemoryPerBlockOptin":232448,)"
     R"("totalGlobalMem":150754820096,"smClockRateKHz":1980000,)"
     R"("memClockRateKHz":3201000,"l2CacheSize":62914560,"deviceVer":900,)"
     R"("deviceName":"NVIDIA H200")"},
    {"B200", 100,
     R"("multiProcessorCount":148,"maxSharedMemoryPerBlockOptin":232448,)"
     R"("totalGlobalMem":191503138816,"smClockRateKHz":1965000,)"
     R"("memClockRateKHz":3996000,"l2CacheSize":132644864,"deviceVer":1000,)"
     R"("deviceName":"NVIDIA B200")"}};

constexpr char kCommonJson[] =
    R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],)"
    R"("regsPerBlock":65536,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
    R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
    R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,)"
    R"("pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,)"
    R"("cudaDeviceId":0,"driverVer":13000,)";

struct Heads {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
};

std::ostream& operator<<(std::ostream& out, const Architecture& a) {
  return out << a.name;
}
std::ostream& operator<<(std::ostream& out, const Heads& h) {
  return out << h.heads << "over" << h.kv_heads << "of" << h.head_dim;
}

struct Plan {
  std::string error;  // Empty where there is a plan.
  std::string engine;
  int64_t workspace_bytes = -1;
};

// A graph of attention over ragged records, for one direction.
class SdpaGraph {
 public:
  SdpaGraph(const Architecture& architecture, const Heads& heads);

  Plan PlanForward();
  Plan PlanBackward();

 private:
  Tensor Make(const char* name, std::vector<int64_t> dims,
              std::vector<int64_t> strides, fe::DataType_t type,
              Tensor offsets = nullptr);
  Tensor Offsets(const char* name) {
    return Make(name, {kRecords + 1, 1, 1, 1}, {1, 1, 1, 1},
                fe::DataType_t::INT32);
  }
  Tensor Lengths(const char* name) {
    return Make(name, {kRecords, 1, 1, 1}, {1, 1, 1, 1}, fe::DataType_t::INT32);
  }
  std::vector<int64_t> Dims(int64_t heads) const {
    return {kRecords, heads, kTokens, heads_.head_dim};
  }
  std::vector<int64_t> Strides(int64_t heads) const {
    const int64_t row = heads * heads_.head_dim;
    return {kTokens * row, heads_.head_dim, row, 1};
  }
  Tensor Rows(const char* name, int64_t heads, const Tensor& offsets) {
    return Make(name, Dims(heads), Strides(heads), fe::DataType_t::BFLOAT16,
                offsets);
  }
  void Result(const Tensor& tensor, int64_t heads, const Tensor& offsets);
  template <typename Options>
  Options Causal() const;
  Plan Finish();

  Heads heads_;
  fe::graph::Graph graph_;
  std::string error_;
  int64_t next_uid_ = 1;
  Tensor q_offsets_;
  Tensor kv_offsets_;
  Tensor q_lengths_;
  Tensor kv_lengths_;
  Tensor q_;
  Tensor k_;
  Tensor v_;
};

SdpaGraph::SdpaGraph(const Architecture& architecture, const Heads& heads)
    : heads_(heads) {
  const std::string json = std::string(kCommonJson) + architecture.json + "}";
  auto properties = std::make_shared<fe::DeviceProperties>();
  auto read = properties->deserialize({json.begin(), json.end()});
  if (read.is_bad()) error_ = read.get_message();
  graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  graph_.set_device_properties(properties);
  graph_.set_sm_version(architecture.sm);
  q_offsets_ = Offsets("q offsets");
  kv_offsets_ = Offsets("kv offsets");
  q_lengths_ = Lengths("q lengths");
  kv_lengths_ = Lengths("kv lengths");
  q_ = Rows("q", heads.heads, q_offsets_);
  k_ = Rows("k", heads.kv_heads, kv_offsets_);
  v_ = Rows("v", heads.kv_heads, kv_offsets_);
}

Tensor SdpaGraph::Make(const char* name, std::vector<int64_t> dims,
                       std::vector<int64_t> strides, fe::DataType_t type,
                       Tensor offsets) {
  auto attributes = fe::graph::Tensor_attributes()
                        .set_name(name)
                        .set_dim(std::move(dims))
                        .set_stride(std::move(strides))
                        .set_data_type(type)
                        .set_uid(next_uid_++);
  if (offsets != nullptr) attributes.set_ragged_offset(offsets);
  return graph_.tensor(attributes);
}

void SdpaGraph::Result(const Tensor& tensor, int64_t heads,
                       const Tensor& offsets) {
  tensor->set_output(true)
      .set_uid(next_uid_++)
      .set_dim(Dims(heads))
      .set_stride(Strides(heads))
      .set_ragged_offset(offsets);
}

template <typename Options>
Options SdpaGraph::Causal() const {
  Options options;
  options.set_attn_scale(0.125f);
  options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT);
  options.set_diagonal_band_right_bound(0);
  options.set_padding_mask(true);
  options.set_seq_len_q(q_lengths_);
  options.set_seq_len_kv(kv_lengths_);
  return options;
}

// Statistics are padded: ragged ones are refused backward before Hopper.
Plan SdpaGraph::PlanForward() {
  auto options = Causal<fe::graph::SDPA_attributes>();
  options.set_name("forward").set_generate_stats(true);
  auto [out, stats] = graph_.sdpa(q_, k_, v_, options);
  Result(out, heads_.heads, q_offsets_);
  stats->set_output(true)
      .set_uid(next_uid_++)
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim({kRecords, heads_.heads, kTokens, 1})
      .set_stride({heads_.heads * kTokens, kTokens, 1, 1});
  return Finish();
}

Plan SdpaGraph::PlanBackward() {
  const Tensor out = Rows("out", heads_.heads, q_offsets_);
  const Tensor dout = Rows("dout", heads_.heads, q_offsets_);
  const Tensor stats =
      Make("stats", {kRecords, heads_.heads, kTokens, 1},
           {heads_.heads * kTokens, kTokens, 1, 1}, fe::DataType_t::FLOAT);
  auto options = Causal<fe::graph::SDPA_backward_attributes>();
  options.set_name("backward");
  options.set_max_total_seq_len_q(2 * kTokens);
  options.set_max_total_seq_len_kv(2 * kTokens);
  auto [dq, dk, dv] =
      graph_.sdpa_backward(q_, k_, v_, out, dout, stats, options);
  Result(dq, heads_.heads, q_offsets_);
  Result(dk, heads_.kv_heads, kv_offsets_);
  Result(dv, heads_.kv_heads, kv_offsets_);
  return Finish();
}

Plan SdpaGraph::Finish() {
  if (!error_.empty()) return {.error = error_};
  auto status = graph_.validate();
  if (status.is_good()) status = graph_.build_operation_graph();
  if (status.is_good()) {
    status = graph_.create_execution_plans({fe::HeurMode_t::A});
  }
  if (status.is_good()) status = graph_.check_support();
  if (status.is_good()) {
    status = graph_.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE);
  }
  if (status.is_bad()) return {.error = status.get_message()};
  Plan plan;
  (void)graph_.get_workspace_size(plan.workspace_bytes);
  (void)graph_.get_plan_name(plan.engine);
  return plan;
}

using Param = std::tuple<Architecture, Heads>;

class SdpaPlansTest : public testing::TestWithParam<Param> {};

TEST_P(SdpaPlansTest, AreFinalBothWays) {
  const auto& [architecture, heads] = GetParam();
  const auto expect_plan = [&](const char* direction, const Plan& plan) {
    EXPECT_EQ(plan.error, "") << direction;
    std::cout << architecture << " " << heads << " " << direction << ": "
              << plan.engine << ", workspace " << plan.workspace_bytes
              << " bytes\n";
  };
  expect_plan("forward", SdpaGraph(architecture, heads).PlanForward());
  expect_plan("backward", SdpaGraph(architecture, heads).PlanBackward());
}

INSTANTIATE_TEST_SUITE_P(
    Models, SdpaPlansTest,
    testing::Combine(testing::ValuesIn(kArchitectures),
                     testing::Values(Heads{9, 3, 64}, Heads{32, 8, 128},
                                     Heads{32, 32, 96})),
    [](const auto& test) {
      return testing::PrintToString(std::get<0>(test.param)) + "_" +
             testing::PrintToString(std::get<1>(test.param));
    });

TEST(SdpaPlansRefusalTest, HeadsThatDoNotDivideAreRefusedInWords) {
  EXPECT_NE(SdpaGraph(kArchitectures[1], {9, 4, 64}).PlanForward().error, "");
  EXPECT_NE(SdpaGraph(kArchitectures[1], {8, 8, 60}).PlanForward().error, "");
}

}  // namespace
}  // namespace lorica
