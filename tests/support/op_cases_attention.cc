#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/op_case_list.h"
#include "tests/support/reference_attention.h"

namespace lorica {
namespace {

using reference::Absolute;
using reference::Signs;

struct AttentionCase {
  std::string name;
  int64_t queries;  // Rows of q; rows of no segment included.
  int64_t keys;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  std::vector<Segment> segments;
  DType dtype = DType::kF32;
  Layout2d layout = Layout2d::kDense;
};

struct HostAttention {
  HostMatrix q;
  HostMatrix k;
  HostMatrix v;
  HostMatrix dout;
  reference::AttentionShape shape;
};

HostAttention OperandsOf(const AttentionCase& c) {
  // Scaled so that weights are neither flat nor one-hot.
  const int64_t q_cols = c.heads * c.head_dim;
  const int64_t kv_cols = c.kv_heads * c.head_dim;
  return {.q = Scaled(RandomMatrix("q", c.queries, q_cols, c.dtype), 2.0),
          .k = Scaled(RandomMatrix("k", c.keys, kv_cols, c.dtype), 2.0),
          .v = RandomMatrix("v", c.keys, kv_cols, c.dtype),
          .dout = RandomMatrix("dout", c.queries, q_cols, c.dtype),
          .shape = {.segments = c.segments,
                    .head_dim = c.head_dim,
                    .scale = 1.0 / std::sqrt(c.head_dim)}};
}

struct DeviceAttention {
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor out;
  Tensor lse;

  AttentionArgs Args(const std::vector<Segment>& segments,
                     const reference::AttentionShape& shape) const {
    return {
        .q = q.view(),
        .k = k.view(),
        .v = v.view(),
        .out = out.view(),
        .lse = lse.view(),
        .segments = {segments.data(), static_cast<int64_t>(segments.size())},
        .head_dim = shape.head_dim,
        .scale = static_cast<float>(shape.scale)};
  }
};

DeviceAttention Upload(const AttentionCase& c, const HostAttention& host,
                       Device* device) {
  return {.q = Upload(device, host.q, c.dtype, c.layout),
          .k = Upload(device, host.k, c.dtype, c.layout),
          .v = Upload(device, host.v, c.dtype, c.layout),
          .out = Room(device, c.queries, host.q.cols, c.dtype, c.layout),
          .lse = Upload(device, HostMatrix(c.heads, c.queries), DType::kF32)};
}

PreparedOp PrepareForward(const AttentionCase& c, Device* device) {
  const HostAttention host = OperandsOf(c);
  const DeviceAttention on = Upload(c, host, device);
  return {.run =
              [=] {
                device->backend().attention(device->queue(),
                                            on.Args(c.segments, host.shape));
              },
          .results = {{"out", on.out}, {"lse", on.lse}}};
}

PreparedOp PrepareBackward(const AttentionCase& c, Device* device) {
  const HostAttention host = OperandsOf(c);
  DeviceAttention on = Upload(c, host, device);
  // The forward pass is another entry's case; its exact results stand here.
  const auto forward = Attention(host.q, host.k, host.v, host.shape);
  on.out = Upload(device, forward.out, c.dtype, c.layout);
  on.lse = Upload(device, forward.lse, DType::kF32);
  const Tensor dout = Upload(device, host.dout, c.dtype, c.layout);
  const Tensor dq = Room(device, c.queries, host.q.cols, c.dtype, c.layout);
  const Tensor dk = Room(device, c.keys, host.k.cols, c.dtype, c.layout);
  const Tensor dv = Room(device, c.keys, host.v.cols, c.dtype, c.layout);
  return {.run =
              [=] {
                device->backend().attention_backward(
                    device->queue(),
                    {.forward = on.Args(c.segments, host.shape),
                     .dout = dout.view(),
                     .dq = dq.view(),
                     .dk = dk.view(),
                     .dv = dv.view()});
              },
          .results = {{"dq", dq}, {"dk", dk}, {"dv", dv}}};
}

// A weight is off, relatively, by as much as its score is absolutely: the
// terms summed carry the largest score's magnitude with them.
HostMatrix Sensitive(const HostAttention& host, const HostMatrix& terms) {
  const double scores = ScoreMagnitude(host.q, host.k, host.shape);
  return Scaled(terms, 1.0 + scores);
}

int64_t LongestSum(const AttentionCase& c) {
  int64_t keys = 0;
  for (const Segment& s : c.segments) keys = std::max(keys, s.num_keys);
  return c.head_dim + keys + 8;  // 8: the exponential and the quotient.
}

std::vector<OpExpectation> ExpectForward(const AttentionCase& c) {
  const HostAttention host = OperandsOf(c);
  const auto exact = Attention(host.q, host.k, host.v, host.shape);
  const HostMatrix terms =
      Attention(host.q, host.k, Absolute(host.v), host.shape).out;
  Bound bound = {
      .intermediate = c.dtype, .result = c.dtype, .length = LongestSum(c)};
  const Bound lse = {.length = bound.length};
  const HostMatrix ones = reference::Map(
      exact.lse, [](double value) { return 1.0 + std::abs(value); });
  return {Expect("out", exact.out, bound, terms, Sensitive(host, terms)),
          Expect("lse", exact.lse, lse, ones, Sensitive(host, ones))};
}

std::vector<OpExpectation> ExpectBackward(const AttentionCase& c) {
  const HostAttention host = OperandsOf(c);
  const auto exact = AttentionBackward(host.dout, host.q, host.k, host.v,
                                       host.shape, Signs::kTrue);
  const auto terms =
      AttentionBackward(Absolute(host.dout), host.q, host.k, Absolute(host.v),
                        host.shape, Signs::kAbsolute);
  const Bound bound = {.intermediate = c.dtype,
                       .result = c.dtype,
                       .length = LongestSum(c) + c.queries};
  return {Expect("dq", exact.dq, bound, terms.dq, Sensitive(host, terms.dq)),
          Expect("dk", exact.dk, bound, terms.dk, Sensitive(host, terms.dk)),
          Expect("dv", exact.dv, bound, terms.dv, Sensitive(host, terms.dv))};
}

void Add(const AttentionCase& c, OpCaseList* list) {
  list->push_back(
      {.entry = "attention",
       .name = c.name + WordOf(c.dtype) + WordOf(c.layout),
       .prepare = [c](Device* device) { return PrepareForward(c, device); },
       .expect = [c] { return ExpectForward(c); }});
  list->push_back(
      {.entry = "attention_backward",
       .name = c.name + WordOf(c.dtype) + WordOf(c.layout),
       .prepare = [c](Device* device) { return PrepareBackward(c, device); },
       .expect = [c] { return ExpectBackward(c); }});
}

Segment Whole(int64_t rows) { return {0, rows, 0, rows}; }

std::vector<Segment> Records(int64_t count, int64_t rows) {
  std::vector<Segment> records;
  for (int64_t i = 0; i < count; ++i) {
    records.push_back({i * rows, rows, i * rows, rows});
  }
  return records;
}

}  // namespace

void AddAttentionCases(OpCaseList* list) {
  std::vector<AttentionCase> cases = {
      {"OneToken", 1, 1, 2, 1, 8, {Whole(1)}},
      {"OneTile", 64, 64, 2, 2, 64, {Whole(64)}},
      {"GroupsOfThree", 150, 150, 6, 2, 32, {Whole(150)}},
      {"HeadsOf9Over3", 33, 33, 9, 3, 64, {Whole(33)}},
      {"HeadsOf32Over8", 40, 40, 32, 8, 16, {Whole(40)}},
      {"HeadOfTwo", 20, 20, 1, 1, 2, {Whole(20)}},
      {"HeadOf42", 70, 70, 2, 1, 42, {Whole(70)}},
      {"HeadOf80", 67, 67, 2, 2, 80, {Whole(67)}},
      {"HeadOf128", 130, 130, 2, 1, 128, {Whole(130)}},
      {"PackedRecords",
       200,
       200,
       2,
       1,
       16,
       {{0, 75, 0, 75}, {75, 3, 75, 3}, {78, 66, 78, 66}}},
      // More heads of records than the CPU's backward pass takes at a time.
      {"ManyRecords", 70, 70, 8, 2, 8, Records(35, 2)},
      {"RowsOfNoSegment", 90, 95, 2, 2, 16, {{4, 30, 7, 30}, {50, 33, 60, 33}}},
      {"EarlierKeys", 70, 171, 4, 2, 16, {{0, 70, 0, 171}}},
      {"ReversedSegments",
       40,
       50,
       2,
       1,
       16,
       {{20, 20, 0, 25}, {0, 20, 25, 25}}},
      {"DecodeOne", 1, 777, 6, 2, 64, {{0, 1, 0, 777}}},
      {"DecodeFour", 4, 300, 2, 1, 40, {{0, 4, 0, 300}}},
      {"DecodeBatch",
       3,
       600,
       2,
       2,
       16,
       {{0, 1, 0, 257}, {1, 1, 257, 10}, {2, 1, 300, 300}}},
  };
  for (AttentionCase& c : cases) {
    for (const DType dtype : kComputeTypes) {
      c.dtype = dtype;
      c.layout = Layout2d::kDense;
      Add(c, list);
      c.layout = Layout2d::kStrided;
      Add(c, list);
    }
  }
}

}  // namespace lorica
