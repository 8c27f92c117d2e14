#include "parallel/mesh.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/check.h"

namespace lorica {
namespace {

// Runs of `tensor` neighbours in `order` that touch several hosts.
int SpreadRuns(absl::Span<const int> hosts, absl::Span<const int> order,
               int tensor) {
  int spread = 0;
  for (size_t first = 0; first < order.size(); first += tensor) {
    const auto run = order.subspan(first, tensor);
    spread += std::any_of(run.begin(), run.end(), [&](int rank) {
      return hosts[rank] != hosts[run.front()];
    });
  }
  return spread;
}

std::vector<int> HostsOf(Communicator& world, int host) {
  std::vector<int64_t> hosts(static_cast<size_t>(world.size()), 0);
  hosts[world.rank()] = host;
  world.AllReduceSum(absl::MakeSpan(hosts), Purpose::kControl);
  return {hosts.begin(), hosts.end()};
}

}  // namespace

std::vector<int> OrderByHost(absl::Span<const int> hosts, int tensor) {
  std::vector<int> same(hosts.size());
  std::iota(same.begin(), same.end(), 0);
  std::map<int, std::vector<int>> ranks_of;
  for (const int rank : same) ranks_of[hosts[rank]].push_back(rank);
  std::vector<std::vector<int>> runs;
  std::vector<int> left_over;
  for (const auto& [host, ranks] : ranks_of) {
    const size_t whole = ranks.size() / tensor * tensor;
    for (size_t first = 0; first < whole; first += tensor) {
      runs.emplace_back(ranks.begin() + first, ranks.begin() + first + tensor);
    }
    left_over.insert(left_over.end(), ranks.begin() + whole, ranks.end());
  }
  for (size_t first = 0; first < left_over.size(); first += tensor) {
    runs.emplace_back(left_over.begin() + first,
                      left_over.begin() + first + tensor);
  }
  // By first rank, so that rank 0 leads the first replica.
  std::sort(runs.begin(), runs.end());
  std::vector<int> order;
  for (const std::vector<int>& run : runs) {
    order.insert(order.end(), run.begin(), run.end());
  }
  const bool gains = order.front() == 0 && SpreadRuns(hosts, order, tensor) <
                                               SpreadRuns(hosts, same, tensor);
  return gains ? order : same;
}

absl::StatusOr<Mesh> Mesh::Create(const MeshConfig& config,
                                  std::unique_ptr<Communicator> world,
                                  int host) {
  CHECK(world != nullptr);
  if (config.data < 1 || config.tensor < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "mesh.data = ", config.data, " and mesh.tensor = ", config.tensor,
        " must both be at least 1"));
  }
  const int64_t ranks = int64_t{config.data} * config.tensor;
  if (ranks != world->size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "mesh.data = ", config.data, " times mesh.tensor = ", config.tensor,
        " needs ", ranks, " ranks, but ", world->size(),
        world->size() == 1 ? " was" : " were",
        " started; start with mpirun -n ", ranks, " or change the mesh"));
  }
  const std::vector<int> hosts = HostsOf(*world, host);
  const std::vector<int> order = OrderByHost(hosts, config.tensor);
  const auto place = std::find(order.begin(), order.end(), world->rank());
  const int rank = static_cast<int>(place - order.begin());
  if (!std::is_sorted(order.begin(), order.end())) {
    world = world->Split(0, rank);
  }
  Mesh mesh;
  mesh.spread_tensor_groups_ = SpreadRuns(hosts, order, config.tensor);
  mesh.tensor_ = world->Split(rank / config.tensor, rank);
  mesh.data_ = world->Split(rank % config.tensor, rank);
  mesh.world_ = std::move(world);
  return mesh;
}

}  // namespace lorica
