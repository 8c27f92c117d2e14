#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/check.h"
#include "runtime/ops.h"

namespace lorica {
namespace {

// Factors start on whole vectors of either type.
constexpr int64_t kAlignment = 32;

int64_t Aligned(int64_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

template <typename Attention, typename Mlp>
auto& Pick(Attention& attention, Mlp& mlp, LinearKind first) {
  switch (first) {
    case kQ:
      return attention.qkv;
    case kO:
      return attention.o;
    case kGate:
      return mlp.up;
    case kDown:
      return mlp.down;
    default:
      LOG(FATAL) << "linear layer " << first
                 << " is not the first of its input";
  }
}

Shape ShapeOfA(const LoraModule& m) { return {m.rank, m.linear.shape[1]}; }
Shape ShapeOfB(const LoraModule& m) { return {m.linear.shape[0], m.rank}; }

// The split of B's sections, one after another.
std::vector<ShardSpec> SectionsOfB(const LoraModule& m) {
  const ShardSpec first = LoraSpecsFor(m.linear.shard).b;
  const int64_t rows = m.linear.shape[0] / m.linear.sections;
  std::vector<ShardSpec> sections;
  for (int section = 0; section < m.linear.sections; ++section) {
    sections.push_back(SectionOf(first, section, rows));
  }
  return sections;
}

// Of this rank, all sections.
Shape LocalShapeOfB(const LoraModule& m, int rank) {
  int64_t rows = 0;
  for (const ShardSpec& section : SectionsOfB(m)) {
    rows += SliceOf(section, ShapeOfB(m), rank).rows.size();
  }
  return {rows, m.rank};
}

}  // namespace

Adapter::Adapter(Device* device, DType compute, int64_t num_layers,
                 std::vector<LoraModule> modules, float dropout, int rank)
    : modules_(std::move(modules)),
      dropout_(dropout),
      lowest_layer_(num_layers),
      attention_(static_cast<size_t>(num_layers)),
      mlp_(static_cast<size_t>(num_layers)) {
  CHECK(!modules_.empty());
  for (const LoraModule& module : modules_) {
    lowest_layer_ = std::min(lowest_layer_, module.linear.layer);
  }
  std::vector<Group> groups = Groups();
  Place(&groups, rank);
  const Shape flat = {
      Aligned(factors_.back().offset + factors_.back().elements)};
  values_ = Tensor::Zeros(device, flat, DType::kF32);
  grads_ = Tensor::Zeros(device, flat, DType::kF32);
  m_ = Tensor::Zeros(device, flat, DType::kF32);
  v_ = Tensor::Zeros(device, flat, DType::kF32);
  Connect(groups, Tensor::Zeros(device, flat, compute), rank);
}

std::vector<Adapter::Group> Adapter::Groups() const {
  constexpr std::pair<LinearKind, int> kKinds[] = {
      {kQ, 3}, {kO, 1}, {kGate, 2}, {kDown, 1}};
  std::vector<Group> groups;
  for (int64_t layer = 0; layer < std::ssize(attention_); ++layer) {
    for (const auto& [first, count] : kKinds) {
      Group group = {.layer = layer, .first = first, .num_kinds = count};
      group.parts.resize(static_cast<size_t>(count), nullptr);
      group.b_offsets.resize(static_cast<size_t>(count), 0);
      bool adapted = false;
      for (const LoraModule& module : modules_) {
        const int part = module.linear.kind - first;
        if (module.linear.layer != layer || part < 0 || part >= count) continue;
        group.parts[static_cast<size_t>(part)] = &module;
        adapted = true;
      }
      if (adapted) groups.push_back(std::move(group));
    }
  }
  return groups;
}

// Lays the factors out: replicated ones first, the A factors of one group and
// the sections of one B without a gap.
void Adapter::Place(std::vector<Group>* groups, int rank) {
  int64_t offset = 0;
  const auto add = [&](const Group& group, size_t part, Factor::Kind kind,
                       const ShardSpec& shard, int64_t first_row = 0) {
    const LoraModule& module = *group.parts[part];
    const bool is_a = kind == Factor::Kind::kA;
    const Shape shape = is_a ? ShapeOfA(module) : ShapeOfB(module);
    const Slice slice = SliceOf(shard, shape, rank);
    factors_.push_back({.kind = kind,
                        .module = module.linear.module,
                        .layer = group.layer,
                        .first = group.first,
                        .part = part,
                        .shape = shape,
                        .shard = shard,
                        .slice = slice,
                        .first_row = first_row,
                        .offset = offset,
                        .elements = slice.rows.size() * slice.cols.size(),
                        .scale = is_a ? 1.0f : module.scale});
    offset += factors_.back().elements;
  };
  for (const bool partial : {true, false}) {
    for (Group& group : *groups) {
      bool stacked = false;
      for (size_t p = 0; p < group.parts.size(); ++p) {
        const LoraModule* module = group.parts[p];
        if (module == nullptr) continue;
        const ShardSpec shard = LoraSpecsFor(module->linear.shard).a;
        if (GradIsPartial(shard) != partial) continue;
        if (!stacked) group.a_offset = offset = Aligned(offset);
        stacked = true;
        add(group, p, Factor::Kind::kA, shard);
      }
      for (size_t p = 0; p < group.parts.size(); ++p) {
        const LoraModule* module = group.parts[p];
        if (module == nullptr) continue;
        const std::vector<ShardSpec> sections = SectionsOfB(*module);
        if (GradIsPartial(sections[0]) != partial) continue;
        group.b_offsets[p] = offset = Aligned(offset);
        int64_t first_row = 0;
        for (const ShardSpec& shard : sections) {
          add(group, p, Factor::Kind::kB, shard, first_row);
          first_row += factors_.back().slice.rows.size();
        }
      }
    }
    if (partial) replicated_elements_ = offset = Aligned(offset);
  }
}

const LinearAdapter& Adapter::linear(int64_t layer, LinearKind first) const {
  const size_t at = static_cast<size_t>(layer);
  return Pick(attention_[at], mlp_[at], first);
}

LinearAdapter* Adapter::Find(int64_t layer, LinearKind first) {
  const size_t at = static_cast<size_t>(layer);
  return &Pick(attention_[at], mlp_[at], first);
}

// Gives each layer its views of the flat arrays.
void Adapter::Connect(const std::vector<Group>& groups, const Tensor& compute,
                      int rank) {
  const auto view = [](const Tensor& flat, int64_t offset, Shape shape) {
    return flat.Cols({offset, offset + shape.elements()}).Reshape(shape);
  };
  for (const Group& group : groups) {
    LinearAdapter* linear = Find(group.layer, group.first);
    linear->parts.resize(group.parts.size());
    linear->dropout = dropout_;
    int64_t stacked = 0;
    Slice a_slice;
    for (size_t p = 0; p < group.parts.size(); ++p) {
      const LoraModule* module = group.parts[p];
      if (module == nullptr) continue;
      a_slice = SliceOf(LoraSpecsFor(module->linear.shard).a, ShapeOfA(*module),
                        rank);
      const Shape b_shape = LocalShapeOfB(*module, rank);
      linear->parts[p] = {.b = view(compute, group.b_offsets[p], b_shape),
                          .db = view(grads_, group.b_offsets[p], b_shape),
                          .first_rank = stacked,
                          .scale = module->scale};
      stacked += module->rank;
      if (linear->name.empty()) linear->name = module->linear.module;
      linear->inputs = module->linear.shape[1];
    }
    const Shape a_shape = {stacked, a_slice.cols.size()};
    linear->first_input = a_slice.cols.begin;
    linear->a = view(compute, group.a_offset, a_shape);
    linear->da = view(grads_, group.a_offset, a_shape);
  }
}

void Adapter::Initialize(uint64_t seed) {
  for (const Factor& factor : factors_) {
    std::vector<float> values(static_cast<size_t>(factor.elements), 0.0f);
    if (factor.kind == Factor::Kind::kA) {
      const RandomField field = {seed, StreamOf(factor.module.c_str())};
      const int64_t inputs = factor.shape[1];
      const float bound = 1.0f / std::sqrt(static_cast<float>(inputs));
      size_t i = 0;
      for (int64_t r = factor.slice.rows.begin; r < factor.slice.rows.end;
           ++r) {
        for (int64_t c = factor.slice.cols.begin; c < factor.slice.cols.end;
             ++c) {
          const auto index = static_cast<uint64_t>(r * inputs + c);
          values[i++] = (2.0f * field.Uniform(index) - 1.0f) * bound;
        }
      }
    }
    SetValue(factor, values);
  }
  Refresh();
}

void Adapter::SetValue(const Factor& factor, absl::Span<const float> values) {
  CHECK_EQ(std::ssize(values), factor.elements) << factor.module;
  if (factor.elements == 0) return;
  values_.Cols({factor.offset, factor.offset + factor.elements})
      .CopyFrom(values.data());
}

std::vector<float> Adapter::GetValue(const Factor& factor) const {
  return values_.Cols({factor.offset, factor.offset + factor.elements})
      .ToHost<float>();
}

Tensor Adapter::CopyOf(const Factor& factor) const {
  const LinearAdapter& linear = this->linear(factor.layer, factor.first);
  const LinearAdapter::Part& part = linear.parts[factor.part];
  const int64_t ranks = part.db.cols();
  if (factor.kind == Factor::Kind::kB) {
    const int64_t first = factor.first_row;
    return part.b.Rows({first, first + factor.slice.rows.size()})
        .Cols({0, ranks});
  }
  return linear.a.Rows({part.first_rank, part.first_rank + ranks});
}

void Adapter::Refresh() {
  if (copies_.pieces.empty()) {
    std::vector<ops::Piece> pieces;
    for (const Factor& factor : factors_) {
      pieces.push_back({factor.offset, factor.scale, CopyOf(factor)});
    }
    copies_ = ops::MakePieceTable(std::move(pieces));
  }
  ops::ScatterPieces(values_, copies_);
}

void Adapter::MoveInto(int64_t layer, LinearKind first,
                       const WeightStack& stack) {
  LinearAdapter* linear = Find(layer, first);
  CHECK(linear->present());
  CHECK_EQ(linear->a.rows(), stack.ranks());
  CHECK_GE(linear->parts.size(), stack.parts());
  Tensor a = stack.a().Rows({0, stack.ranks()});
  ops::ConvertInto(linear->a, 1.0f, &a);
  linear->a = stack.a();
  for (size_t p = 0; p < linear->parts.size(); ++p) {
    LinearAdapter::Part& part = linear->parts[p];
    if (!part.b.present()) continue;
    Range ranks = {part.first_rank, part.first_rank + part.b.cols()};
    Tensor b = stack.b(p, ranks);
    ops::ConvertInto(part.b, 1.0f, &b);
    if (ranks.end == stack.ranks()) ranks.end = stack.border();
    part.b = stack.b(p, ranks);
  }
  linear->border = stack.border();
  copies_ = {};
}

void Adapter::ZeroGrad() { ops::Fill(0.0f, &grads_); }

int64_t Adapter::total_parameters() const {
  int64_t total = 0;
  for (const LoraModule& module : modules_) {
    total += ShapeOfA(module).elements() + ShapeOfB(module).elements();
  }
  return total;
}

}  // namespace lorica
