// A process killed at any instant of saving leaves saves that load.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "launch/state/checkpoint.h"
#include "launch/state/saver.h"
#include "tests/launch/state/tiny_adapter.h"
#include "tests/support/temp_directory.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

CheckpointOptions Options(const std::string& directory) {
  return {.directory = directory, .keep = 2};
}

// Saves step after step, on two ranks, until it is killed.
void SaveForever(const std::string& directory) {
  RunRanks(2, [&](std::unique_ptr<Communicator> world) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const auto adapter = TinyAdapter(device.get(), world->rank(), 2);
    auto saver = Saver::Open(Options(directory), 0, world.get());
    CHECK(saver.ok()) << saver.status();
    for (int step = 1; step > 0; ++step) {
      Fill(step, adapter.get());
      (*saver)->Start({.manifest = TinyManifest(*adapter, step, 2),
                       .snapshot = TakeSnapshot(adapter.get(), world->rank()),
                       .peft = std::nullopt},
                      std::chrono::steady_clock::now());
      while (!(*saver)->Poll().has_value()) {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
  });
}

// Every directory with a save's name is whole, and `latest` names one.
void ExpectWhole(const std::string& directory, int round) {
  ASSERT_FALSE(SavesIn(directory).empty()) << round;
  const std::unique_ptr<Device> device = OpenTestDevice();
  const auto expected = TinyAdapter(device.get(), 0, 1);
  const auto adapter = TinyAdapter(device.get(), 0, 1);
  for (const std::string& name : SavesIn(directory)) {
    auto state = SavedState::Open({directory + "/" + name});
    ASSERT_TRUE(state.ok()) << round << ": " << state.status();
    EXPECT_TRUE(state->Verify().ok()) << round << ": " << state->Verify();
    ASSERT_TRUE(LoadState(&*state, adapter.get()).ok());
    const int64_t step = state->manifest().position.step;
    EXPECT_EQ(name, StepName(step));
    Fill(static_cast<int>(step), expected.get());
    EXPECT_EQ(adapter->second_moments()->ToHost<float>(),
              expected->second_moments()->ToHost<float>());
  }
}

TEST(KillTest, LeavesTheNewestSaveWholeAtAnyInstant) {
  const TempDirectory directory;
  const std::string run = directory / "run";
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      SaveForever(run);
      _exit(0);
    }
    while (!fs::exists(run + "/latest")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 100'000));
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    ExpectWhole(run, round);
  }
  // The next run clears away what was half-written.
  ASSERT_TRUE(CheckpointStore::Open(Options(run), 0).ok());
  for (const auto& entry : fs::directory_iterator(run)) {
    EXPECT_EQ(entry.path().filename().string().find(".partial"),
              std::string::npos)
        << entry;
  }
}

}  // namespace
}  // namespace lorica
