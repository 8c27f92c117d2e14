#include "launch/state/saver.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/launch/state/tiny_adapter.h"
#include "tests/support/temp_directory.h"

namespace {

// What the disk still takes, and how many times it still syncs.
std::atomic<int64_t> room = std::numeric_limits<int64_t>::max();
std::atomic<int64_t> syncs = std::numeric_limits<int64_t>::max();

}  // namespace

// A disk that fails on demand: these stand before the C library's.
extern "C" ssize_t write(int file, const void* bytes, size_t count) {
  if (file <= STDERR_FILENO) return syscall(SYS_write, file, bytes, count);
  const int64_t left = room.fetch_sub(static_cast<int64_t>(count));
  if (left <= 0) {
    errno = ENOSPC;
    return -1;
  }
  return syscall(SYS_write, file, bytes,
                 std::min(count, static_cast<size_t>(left)));
}

extern "C" int fsync(int file) {
  if (syncs.fetch_sub(1) <= 0) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(syscall(SYS_fsync, file));
}

namespace lorica {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class SaverTest : public testing::Test {
 protected:
  ~SaverTest() override { Mend(); }

  static void Mend() {
    room = std::numeric_limits<int64_t>::max();
    syncs = std::numeric_limits<int64_t>::max();
  }
  std::string run() const { return directory_ / "run"; }

  // Opens savers on `ranks` ranks and lets each do `body` with its own.
  using Body = std::function<void(Saver*, Adapter*, Communicator*)>;
  void OnRanks(int ranks, const CheckpointOptions& options, const Body& body) {
    RunRanks(ranks, [&](std::unique_ptr<Communicator> world) {
      const std::unique_ptr<Device> device = OpenTestDevice();
      const auto adapter = TinyAdapter(device.get(), world->rank(), ranks);
      auto saver = Saver::Open(options, 0, world.get());
      ASSERT_TRUE(saver.ok()) << saver.status();
      body(saver->get(), adapter.get(), world.get());
    });
  }

  static SaveContent Content(int step, Adapter* adapter, Communicator* world) {
    Fill(step, adapter);
    return {.manifest = TinyManifest(*adapter, step, world->size()),
            .snapshot = TakeSnapshot(adapter, world->rank()),
            .peft = std::nullopt};
  }
  // One save to its end.
  static SaveReport Save(int step, Saver* saver, Adapter* adapter,
                         Communicator* world) {
    EXPECT_FALSE(saver
                     ->Start(Content(step, adapter, world),
                             std::chrono::steady_clock::now())
                     .has_value());
    return saver->Finish().value();
  }
  static std::vector<std::string> NamesIn(const std::string& path) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  // Whether what `latest` names is whole and that of `step`.
  static void ExpectNewest(const std::string& run, int64_t step) {
    EXPECT_EQ(ResolveSave(run), run + "/" + StepName(step));
    const auto bits = BitsOf({ResolveSave(run)});
    EXPECT_TRUE(bits.ok()) << bits.status();
  }

  const TempDirectory directory_;
};

TEST_F(SaverTest, ASaveHoldsAShardARankAndAManifest) {
  OnRanks(3, {.directory = run()},
          [&](auto* saver, auto* adapter, auto* world) {
            const SaveReport report = Save(7, saver, adapter, world);
            EXPECT_TRUE(report.status.ok()) << report.status;
            EXPECT_EQ(report.step, 7);
            EXPECT_GT(report.seconds, 0);
            EXPECT_GT(report.blocked_seconds, 0);
            int64_t bytes = 0;
            for (const auto& entry :
                 fs::directory_iterator(run() + "/step_00000007/state")) {
              bytes += static_cast<int64_t>(entry.file_size());
            }
            EXPECT_EQ(report.bytes, bytes);
          });
  EXPECT_THAT(NamesIn(run()), ElementsAre("latest", "step_00000007"));
  EXPECT_THAT(
      NamesIn(run() + "/step_00000007/state"),
      ElementsAre("manifest.json", "shard-0-of-3.safetensors",
                  "shard-1-of-3.safetensors", "shard-2-of-3.safetensors"));
  ExpectNewest(run(), 7);
}

TEST_F(SaverTest, EveryElementIsWrittenOnce) {
  OnRanks(5, {.directory = run()},
          [&](auto* saver, auto* adapter, auto* world) {
            Save(1, saver, adapter, world);
          });
  auto state = SavedState::Open({run() + "/step_00000001"});
  ASSERT_TRUE(state.ok()) << state.status();
  int64_t held = 0;
  for (const Shard& shard : state->manifest().shards) {
    for (const Piece& piece : shard.pieces) {
      held += piece.slice.rows.size() * piece.slice.cols.size();
    }
  }
  int64_t elements = 0;
  for (const auto& [name, shape] : state->manifest().tensors) {
    elements += shape.elements();
  }
  EXPECT_EQ(held, elements);
}

TEST_F(SaverTest, TrainingGoesOnWhileASaveIsWritten) {
  OnRanks(2, {.directory = run()},
          [&](auto* saver, auto* adapter, auto* world) {
            saver->Start(Content(1, adapter, world),
                         std::chrono::steady_clock::now());
            // Overwrites what is being saved.
            Fill(99, adapter);
            std::optional<SaveReport> report;
            while (!report.has_value()) report = saver->Poll();
            EXPECT_TRUE(report->status.ok());
            EXPECT_FALSE(saver->Poll().has_value());
          });
  WriteTinySave(directory_ / "expected", 1, 1);
  EXPECT_EQ(*BitsOf({ResolveSave(run())}), *BitsOf({directory_ / "expected"}));
}

TEST_F(SaverTest, ASaveInProgressIsWaitedForByTheNext) {
  OnRanks(
      2, {.directory = run()}, [&](auto* saver, auto* adapter, auto* world) {
        const auto now = std::chrono::steady_clock::now();
        EXPECT_FALSE(saver->Start(Content(1, adapter, world), now).has_value());
        const auto first = saver->Start(Content(2, adapter, world), now);
        ASSERT_TRUE(first.has_value());
        EXPECT_EQ(first->step, 1);
        EXPECT_TRUE(first->status.ok());
        EXPECT_EQ(saver->Finish()->step, 2);
      });
  ExpectNewest(run(), 2);
}

TEST_F(SaverTest, TheNewestAndEveryMthAreKept) {
  const CheckpointOptions options = {
      .directory = run(), .keep = 2, .keep_every_steps = 3};
  OnRanks(1, options, [&](auto* saver, auto* adapter, auto* world) {
    for (int step = 1; step <= 8; ++step) Save(step, saver, adapter, world);
  });
  EXPECT_THAT(NamesIn(run()),
              ElementsAre("latest", "step_00000003", "step_00000006",
                          "step_00000007", "step_00000008"));
}

TEST_F(SaverTest, SavesOfLaterStepsAreTheOldestToARunThatStartsAnew) {
  const CheckpointOptions options = {.directory = run(), .keep = 2};
  OnRanks(1, options, [&](auto* saver, auto* adapter, auto* world) {
    for (const int step : {8, 9, 1}) Save(step, saver, adapter, world);
  });
  EXPECT_THAT(NamesIn(run()),
              ElementsAre("latest", "step_00000001", "step_00000009"));
  ExpectNewest(run(), 1);
}

TEST_F(SaverTest, HostsWithDisksOfTheirOwnHoldTheirOwnShards) {
  RunRanks(3, [&](std::unique_ptr<Communicator> world) {
    // Ranks 0 and 2 are on one host.
    const std::string mine = directory_ / (world->rank() == 1 ? "b" : "a");
    const std::unique_ptr<Device> device = OpenTestDevice();
    const auto adapter = TinyAdapter(device.get(), world->rank(), 3);
    auto saver = Saver::Open({.directory = mine, .keep = 1}, 0, world.get());
    ASSERT_TRUE(saver.ok()) << saver.status();
    for (const int step : {1, 2}) {
      EXPECT_TRUE(
          Save(step, saver->get(), adapter.get(), world.get()).status.ok());
    }
  });
  const std::string step = "step_00000002";
  EXPECT_THAT(NamesIn(directory_ / "a"), ElementsAre("latest", step));
  EXPECT_THAT(NamesIn(directory_ / "b"), ElementsAre("latest", step));
  EXPECT_THAT(NamesIn(directory_ / ("a/" + step + "/state")),
              ElementsAre("manifest.json", "shard-0-of-3.safetensors",
                          "shard-2-of-3.safetensors"));
  EXPECT_THAT(NamesIn(directory_ / ("b/" + step + "/state")),
              ElementsAre("manifest.json", "shard-1-of-3.safetensors"));
  EXPECT_TRUE(
      BitsOf({directory_ / ("b/" + step), directory_ / ("a/" + step)}).ok());
  EXPECT_THAT(
      BitsOf({directory_ / ("a/" + step)}).status().message(),
      HasSubstr("state/shard-1-of-3.safetensors of the save is not in"));
}

// Every point at which the disk can fail: the save is reported as lost on all
// ranks, the one before stays the newest, nothing half-written is left, and the
// next save succeeds.
void ExpectSurvived(SaverTest*, const std::string& run, const char* reason,
                    const SaveReport& failed, const SaveReport& next) {
  EXPECT_FALSE(failed.status.ok());
  EXPECT_THAT(failed.status.message(), HasSubstr(reason));
  EXPECT_THAT(failed.status.message(), HasSubstr(run));
  EXPECT_TRUE(next.status.ok()) << next.status;
}

TEST_F(SaverTest, AFullDiskCostsOneSave) {
  for (const int64_t left : {0, 1, 5'000, 20'000, 40'000, 56'000}) {
    OnRanks(
        2, {.directory = run()}, [&](auto* saver, auto* adapter, auto* world) {
          ASSERT_TRUE(Save(1, saver, adapter, world).status.ok());
          world->Barrier();
          room = left;
          world->Barrier();
          const SaveReport failed = Save(2, saver, adapter, world);
          if (world->rank() == 0) {
            ExpectNewest(run(), 1);
            EXPECT_THAT(NamesIn(run()), ElementsAre("latest", "step_00000001"));
          }
          world->Barrier();
          Mend();
          world->Barrier();
          ExpectSurvived(this, run(), "No space left on device", failed,
                         Save(3, saver, adapter, world));
        });
    ExpectNewest(run(), 3);
    fs::remove_all(run());
  }
}

TEST_F(SaverTest, AFailingSyncCostsOneSave) {
  // Of two shards, their directory, the manifest and the tree: the eleventh and
  // later ones are of the directory that holds the save, and of `latest`.
  for (const int64_t good : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
    OnRanks(2, {.directory = run()},
            [&](auto* saver, auto* adapter, auto* world) {
              ASSERT_TRUE(Save(1, saver, adapter, world).status.ok());
              world->Barrier();
              syncs = good;
              world->Barrier();
              const SaveReport failed = Save(2, saver, adapter, world);
              if (world->rank() == 0) ExpectNewest(run(), 1);
              world->Barrier();
              Mend();
              world->Barrier();
              ExpectSurvived(this, run(), "cannot force to disk", failed,
                             Save(3, saver, adapter, world));
            });
    ExpectNewest(run(), 3);
    fs::remove_all(run());
  }
}

TEST_F(SaverTest, ADirectoryThatGoesAwayCostsSavesAndNotTheRun) {
  OnRanks(2, {.directory = run()},
          [&](auto* saver, auto* adapter, auto* world) {
            ASSERT_TRUE(Save(1, saver, adapter, world).status.ok());
            world->Barrier();
            if (world->rank() == 0) {
              fs::rename(run(), run() + ".moved");
              WriteBytes(run(), "a file in the way");
            }
            world->Barrier();
            EXPECT_FALSE(Save(2, saver, adapter, world).status.ok());
          });
  ExpectNewest(run() + ".moved", 1);
}

// A file system of its own, of 256 KiB; skips where none can be mounted.
class SmallDiskTest : public SaverTest {
 protected:
  SmallDiskTest() {
    fs::create_directory(run());
    mounted_ = mount("tmpfs", run().c_str(), "tmpfs", 0, "size=256k") == 0;
    reason_ = std::strerror(errno);
  }
  ~SmallDiskTest() override {
    if (mounted_) umount2(run().c_str(), MNT_DETACH);
  }
  bool mounted_;
  std::string reason_;
};

TEST_F(SmallDiskTest, AFullFileSystemKeepsTheSavesThatFit) {
  if (!mounted_) GTEST_SKIP() << "cannot mount a tmpfs: " << reason_;
  const CheckpointOptions options = {.directory = run(), .keep = 0};
  OnRanks(2, options, [&](auto* saver, auto* adapter, auto* world) {
    int step = 1;
    SaveReport report = Save(step, saver, adapter, world);
    while (report.status.ok() && step < 100) {
      report = Save(++step, saver, adapter, world);
    }
    EXPECT_GT(step, 2);
    EXPECT_THAT(report.status.message(), HasSubstr("No space left on device"));
    if (world->rank() == 0) {
      ExpectNewest(run(), step - 1);
      fs::remove_all(run() + "/step_00000001");
    }
    world->Barrier();
    report = Save(step + 1, saver, adapter, world);
    EXPECT_TRUE(report.status.ok()) << report.status;
    if (world->rank() == 0) ExpectNewest(run(), step + 1);
  });
}

TEST_F(SmallDiskTest, AReadOnlyDirectoryIsRefusedOrReported) {
  if (!mounted_) GTEST_SKIP() << "cannot mount a tmpfs: " << reason_;
  const auto remount = [&](unsigned long flags) {
    ASSERT_EQ(mount(nullptr, run().c_str(), nullptr, MS_REMOUNT | flags, ""), 0)
        << std::strerror(errno);
  };
  OnRanks(2, {.directory = run()},
          [&](auto* saver, auto* adapter, auto* world) {
            ASSERT_TRUE(Save(1, saver, adapter, world).status.ok());
            world->Barrier();
            if (world->rank() == 0) remount(MS_RDONLY);
            world->Barrier();
            EXPECT_THAT(Save(2, saver, adapter, world).status.message(),
                        HasSubstr("Read-only file system"));
          });
  ExpectNewest(run(), 1);
  RunRanks(2, [&](std::unique_ptr<Communicator> world) {
    const auto saver = Saver::Open({.directory = run()}, 0, world.get());
    EXPECT_THAT(saver.status().message(), HasSubstr("Read-only file system"));
  });
  remount(0);
}

}  // namespace
}  // namespace lorica
