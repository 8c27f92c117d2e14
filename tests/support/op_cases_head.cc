#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/op_case_list.h"
#include "tests/support/reference_attention.h"

namespace lorica {
namespace {

using reference::Absolute;
using reference::HeadRow;
using reference::Signs;

// This rank's slice of a vocabulary, and the loss of some rows over it.
struct HeadCase {
  std::string name;
  int64_t rows;
  int64_t inputs;
  int64_t vocab;  // Of the slice.
  int64_t first_vocab;
  int64_t whole_vocab;  // Targets are drawn from all of it.
  int64_t tile;
  DType dtype = DType::kF32;
  DType dh = DType::kF32;
};

constexpr double kGradScale = 0.125;

struct HostHead {
  HostMatrix h;
  HostMatrix weight;
  std::vector<int32_t> targets;
  std::vector<HeadRow<double>> stats;
};

HostHead OperandsOf(const HeadCase& c) {
  HostHead head;
  head.h = Scaled(RandomMatrix("h", c.rows, c.inputs, c.dtype), 4.0);
  head.weight = RandomMatrix("weight", c.vocab, c.inputs, c.dtype);
  head.targets = RandomInts("targets", c.rows, {0, c.whole_vocab});
  // Some rows are without loss.
  for (size_t r = 1; r < head.targets.size(); r += 4) head.targets[r] = -1;
  head.stats = LogitStats(head.h, head.weight, head.targets, c.first_vocab);
  return head;
}

// As though the other ranks' slices held half as much again.
std::vector<HeadRow<double>> WholeStats(std::vector<HeadRow<double>> stats) {
  for (HeadRow<double>& row : stats) row.sum *= 1.5;
  return stats;
}

HostMatrix MatrixOf(const std::vector<HeadRow<double>>& stats) {
  const auto rows = static_cast<int64_t>(stats.size());
  HostMatrix matrix(3, rows);
  for (int64_t r = 0; r < rows; ++r) {
    const HeadRow<double>& row = stats[static_cast<size_t>(r)];
    matrix(0, r) = row.max;
    matrix(1, r) = row.sum;
    matrix(2, r) = row.target_logit;
  }
  return matrix;
}

struct DeviceHead {
  Tensor h;
  Tensor weight;
  Tensor targets;
  Tensor stats;
  Tensor exps;
  Tensor tile_max;

  void RunStats(Device* device, const HeadCase& c) const {
    device->backend().logit_stats(device->queue(),
                                  {.h = h.view(),
                                   .weight = weight.view(),
                                   .targets = targets.view(),
                                   .stats = stats.view(),
                                   .exps = exps.view(),
                                   .tile_max = tile_max.view(),
                                   .first_vocab = c.first_vocab,
                                   .tile = c.tile});
  }
};

enum class Keep : uint8_t { kNothing, kExps };

DeviceHead Upload(const HeadCase& c, const HostHead& host, Keep keep,
                  Device* device) {
  DeviceHead on = {.h = Upload(device, host.h, c.dtype),
                   .weight = Upload(device, host.weight, c.dtype),
                   .targets = UploadInts(device, host.targets),
                   .stats = Room(device, 3, c.rows, DType::kF32)};
  if (keep == Keep::kExps) {
    const int64_t tiles = (c.vocab + c.tile - 1) / c.tile;
    on.exps = Room(device, c.rows, c.vocab, c.dtype);
    on.tile_max = Room(device, tiles, c.rows, DType::kF32);
  }
  return on;
}

PreparedOp PrepareStats(const HeadCase& c, Keep keep, Device* device) {
  const DeviceHead on = Upload(c, OperandsOf(c), keep, device);
  return {.run = [=] { on.RunStats(device, c); },
          .results = {{"stats", on.stats}}};
}

// The largest magnitude that the terms of a row's logits sum to.
double LogitMagnitude(const HostHead& host) {
  const HostMatrix terms =
      Matmul(MatmulForm::kNT, Absolute(host.h), Absolute(host.weight));
  return *std::max_element(terms.values.begin(), terms.values.end());
}

// A maximum and a target's logit are off as a logit is; a sum of exponentials
// is off, relatively, by twice that.
std::vector<OpExpectation> ExpectStats(const HeadCase& c) {
  const HostHead host = OperandsOf(c);
  const double logit = LogitMagnitude(host);
  const HostMatrix stats = MatrixOf(host.stats);
  HostMatrix terms(3, c.rows);
  for (int64_t r = 0; r < c.rows; ++r) {
    terms(0, r) = logit;
    terms(1, r) = stats(1, r) * (1.0 + 2.0 * logit);
    terms(2, r) = logit;
  }
  return {Expect("stats", stats, {.length = c.inputs + c.vocab}, terms)};
}

// Statistics of slices of a vocabulary.
struct MergeCase {
  std::string name;
  int64_t slices;
  int64_t rows;
};

// Maxima some of which leave nothing of their sums; a target in one slice, or
// in none.
std::vector<std::vector<HeadRow<double>>> SlicesOf(const MergeCase& c) {
  const auto random = [&](const char* name) {
    return RandomMatrix(name, c.slices, c.rows, DType::kF32);
  };
  const HostMatrix maxima = Scaled(random("maxima"), 64.0);
  const HostMatrix sums = Absolute(Scaled(random("sums"), 1024.0));
  const HostMatrix logits = Scaled(random("target logits"), 64.0);
  const std::vector<int32_t> holders =
      RandomInts("holders", c.rows, {-1, c.slices});
  std::vector<std::vector<HeadRow<double>>> slices(
      static_cast<size_t>(c.slices));
  for (int64_t s = 0; s < c.slices; ++s) {
    for (int64_t r = 0; r < c.rows; ++r) {
      const bool holds = holders[static_cast<size_t>(r)] == s;
      slices[static_cast<size_t>(s)].push_back(
          {.max = maxima(s, r),
           .sum = sums(s, r),
           .target_logit = holds ? logits(s, r) : 0.0});
    }
  }
  return slices;
}

PreparedOp PrepareMerge(const MergeCase& c, Layout2d layout, Device* device) {
  HostMatrix host(3 * c.slices, c.rows);
  int64_t first = 0;
  for (const auto& slice : SlicesOf(c)) {
    const HostMatrix part = MatrixOf(slice);
    std::copy(part.values.begin(), part.values.end(),
              host.values.begin() + first * c.rows);
    first += 3;
  }
  const Tensor slices = Upload(device, host, DType::kF32, layout);
  const Tensor stats = Room(device, 3, c.rows, DType::kF32, layout);
  return {.run =
              [=] {
                device->backend().merge_logit_stats(
                    device->queue(),
                    {.slices = slices.view(), .stats = stats.view()});
              },
          .results = {{"stats", stats}}};
}

// Each is rounded once.
std::vector<OpExpectation> ExpectMerged(const MergeCase& c) {
  return {Expect("stats", MatrixOf(MergeLogitStats(SlicesOf(c))), {},
                 HostMatrix(3, c.rows))};
}

void Add(const MergeCase& c, OpCaseList* list) {
  for (const Layout2d layout : kEveryLayout) {
    list->push_back(
        {.entry = "merge_logit_stats",
         .name = c.name + WordOf(layout),
         .prepare =
             [=](Device* device) { return PrepareMerge(c, layout, device); },
         .expect = [c] { return ExpectMerged(c); }});
  }
}

PreparedOp PrepareGrad(const HeadCase& c, Device* device) {
  const HostHead host = OperandsOf(c);
  const DeviceHead on = Upload(c, host, Keep::kExps, device);
  const Tensor whole =
      Upload(device, MatrixOf(WholeStats(host.stats)), DType::kF32);
  const Tensor dh = Room(device, c.rows, c.inputs, c.dh);
  // A part of the scale is on the device, in some cases.
  HostMatrix factor(1, 1);
  factor(0, 0) = 2.0;
  const Tensor times =
      c.first_vocab > 0 ? Upload(device, factor, DType::kF32) : Tensor();
  const double scale = times.present() ? kGradScale / 2.0 : kGradScale;
  return {.run =
              [=] {
                // exps are in the backend's own order and are consumed.
                on.RunStats(device, c);
                device->backend().logit_grad(
                    device->queue(), {.exps = on.exps.view(),
                                      .tile_max = on.tile_max.view(),
                                      .stats = whole.view(),
                                      .targets = on.targets.view(),
                                      .weight = on.weight.view(),
                                      .dh = dh.view(),
                                      .times = times.view(),
                                      .scale = static_cast<float>(scale),
                                      .first_vocab = c.first_vocab,
                                      .tile = c.tile});
              },
          .results = {{"dh", dh}}};
}

std::vector<OpExpectation> ExpectGrad(const HeadCase& c) {
  const HostHead host = OperandsOf(c);
  const auto grad = [&](Signs signs) {
    return LogitGrad(host.h, host.weight, host.targets, WholeStats(host.stats),
                     c.first_vocab, kGradScale, signs);
  };
  const HostMatrix terms = grad(Signs::kAbsolute);
  return {Expect(
      "dh", grad(Signs::kTrue),
      {.intermediate = c.dtype, .result = c.dh, .length = c.inputs + c.vocab},
      terms, Scaled(terms, 1.0 + 2.0 * LogitMagnitude(host)))};
}

void Add(const HeadCase& c, OpCaseList* list) {
  for (const Keep keep : {Keep::kNothing, Keep::kExps}) {
    list->push_back(
        {.entry = "logit_stats",
         .name = c.name + WordOf(c.dtype) + (keep == Keep::kExps ? "Kept" : ""),
         .prepare =
             [=](Device* device) { return PrepareStats(c, keep, device); },
         .expect = [c] { return ExpectStats(c); }});
  }
  list->push_back(
      {.entry = "logit_grad",
       .name = c.name + WordOf(c.dtype) + "To" + WordOf(c.dh),
       .prepare = [c](Device* device) { return PrepareGrad(c, device); },
       .expect = [c] { return ExpectGrad(c); }});
}

}  // namespace

void AddHeadCases(OpCaseList* list) {
  for (const MergeCase& c : {MergeCase{"TwoSlices", 2, 256},
                             {"SevenSlices", 7, 33},
                             {"OneSlice", 1, 5},
                             {"ManySlicesOfARow", 64, 1},
                             {"TwoBlocksOfRows", 3, 300}}) {
    Add(c, list);
  }
  std::vector<HeadCase> cases = {
      {"OneTile", 5, 24, 50, 0, 50, 64},
      {"OddTiles", 33, 40, 203, 0, 203, 32},
      {"SliceOfVocabulary", 17, 16, 100, 70, 250, 48},
      {"OneRow", 1, 32, 90, 0, 90, 32},
      // Small logits, none of whose exponentials vanishes beside another's.
      {"OneInput", 3, 1, 50, 0, 50, 64},
  };
  for (HeadCase& c : cases) {
    for (const DType dtype : kComputeTypes) {
      c.dtype = dtype;
      c.dh = DType::kF32;
      Add(c, list);
      if (dtype == DType::kF32) continue;
      c.dh = dtype;
      c.name += "Rounded";
      Add(c, list);
    }
  }
}

}  // namespace lorica
