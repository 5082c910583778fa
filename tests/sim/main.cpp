// tandem-sim: whole clusters of fake devices by seed. A failing seed says why, and how to see it
// again.
#include "runtime/log.hpp"
#include "tests/sim/world.hpp"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <ctime>

namespace {

using namespace tandem;

struct totals {
  std::uint64_t seeds = 0;
  std::uint64_t failed = 0;
  std::uint64_t messages = 0;
  std::uint64_t moves = 0;
  std::uint64_t requests = 0;
  std::uint64_t crashes = 0;
  std::uint64_t cuts = 0;
  std::uint64_t head_losses = 0;
  double busy = 0.0;
  double device_seconds = 0.0;
  double peak_memory = 0.0;
};

void run_seed(std::uint64_t seed, const sim::knobs& how, bool show, totals& sum) {
  const auto out = sim::run(seed, how);
  ++sum.seeds;
  sum.messages += out.messages;
  sum.moves += out.moves;
  sum.requests += out.requests;
  sum.crashes += static_cast<std::uint64_t>(out.crashes);
  sum.cuts += static_cast<std::uint64_t>(out.cuts);
  sum.head_losses += static_cast<std::uint64_t>(out.head_losses);
  sum.busy += out.busy_device_seconds;
  sum.device_seconds += out.virtual_seconds * how.devices;
  sum.peak_memory = std::max(sum.peak_memory, out.peak_memory);
  if (show || !out.violations.empty())
    fmt::print(
        "seed {}: {} devices, {} heads, {:.1f} virtual s, {} requests, {} asked again, {} moves, "
        "{} "
        "crashes, {} cuts, {} head losses, {} training steps, {} messages, hash {:016x}\n",
        seed, how.devices, how.heads, out.virtual_seconds, out.requests, out.asked_again, out.moves,
        out.crashes, out.cuts, out.head_losses, out.training_steps, out.messages, out.hash);
  if (out.violations.empty()) return;
  ++sum.failed;
  for (const auto& what : out.violations) fmt::print("  {}\n", what);
  fmt::print("  again: tandem-sim --seed {}{}\n", seed, how.devices_apart ? " --apart" : "");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Clusters of fake devices in virtual time: real actors, a seed, faults, and a checker"};
  std::uint64_t seed = 0;
  std::string range;
  int devices = 0;
  int heads = 0;
  double moves = 0.0;
  double seconds = 0.0;
  double memory = 0.0;
  int serve_piece = 0;
  int train_piece = 0;
  bool no_faults = false;
  bool apart = false;
  std::string broken;
  std::string log = "off";
  auto* one = app.add_option("--seed", seed, "One seed, shown in full");
  app.add_option("--seeds", range, "Seeds A-B, both included")->excludes(one);
  app.add_option("--devices", devices, "So many, instead of what the seed draws")
      ->check(CLI::Range(1, 4096));
  app.add_option("--heads", heads, "So many processes that may lead, likewise")
      ->check(CLI::Range(1, 16));
  app.add_option("--moves", moves, "Orders by hand a second");
  app.add_option("--seconds", seconds, "Virtual seconds of load and faults");
  app.add_option("--memory", memory, "Share of each device's memory that is taken");
  app.add_option("--serve-piece", serve_piece,
                 "Milliseconds of a piece of serving; a step has two");
  app.add_option("--train-piece", train_piece, "Likewise of training");
  app.add_flag("--no-faults", no_faults, "Nobody dies and nobody is slow");
  app.add_flag("--apart", apart, "Devices share no memory for training");
  app.add_option("--broken", broken, "A rule that is off, to see that it is missed")
      ->check(CLI::IsMember({"book", "epochs", "fence"}));
  app.add_option("--log", log, "What the actors log, from this level on: to see a seed's course")
      ->check(CLI::IsMember({"off", "error", "warning", "info", "debug"}));
  CLI11_PARSE(app, argc, argv);
  std::uint64_t first = seed;
  std::uint64_t last = seed;
  if (!range.empty() && std::sscanf(range.c_str(), "%lu-%lu", &first, &last) != 2) {
    fmt::print(stderr, "tandem-sim: --seeds {}: give two numbers, as in 1-200\n", range);
    return 2;
  }
  (void)open_log(*parse_log_level(log), "");
  totals sum;
  const auto began = std::clock();
  for (auto now = first; now <= last; ++now) {
    auto how = sim::drawn(now);
    if (devices > 0) {
      how.requests_per_second *= static_cast<double>(devices) / how.devices;
      how.devices = devices;
    }
    if (heads > 0) how.heads = heads;
    if (moves > 0) how.moves_per_second = moves;
    if (seconds > 0) how.seconds = seconds;
    if (memory > 0) how.memory_filled = memory;
    how.devices_apart = apart;
    if (serve_piece > 0) how.serve_piece = std::chrono::milliseconds(serve_piece);
    if (train_piece > 0) how.train_piece = std::chrono::milliseconds(train_piece);
    how.faults = !no_faults;
    how.book_loses_writes = broken == "book";
    how.epochs_unchecked = broken == "epochs";
    how.fence_unchecked = broken == "fence";
    run_seed(now, how, range.empty(), sum);
  }
  const double cpu = static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
  fmt::print(
      "{} seeds, {} failed: {} requests, {} moves, {} crashes, {} cuts, {} head losses, {} "
      "messages, memory at most {:.0f}%; "
      "{:.1f} CPU s, {:.0f} busy device-seconds a CPU second (devices are busy {:.0f}% of the "
      "time)\n",
      sum.seeds, sum.failed, sum.requests, sum.moves, sum.crashes, sum.cuts, sum.head_losses,
      sum.messages, 100 * sum.peak_memory, cpu, sum.busy / std::max(cpu, 1e-9),
      100 * sum.busy / std::max(sum.device_seconds, 1e-9));
  return sum.failed == 0 ? 0 : 1;
}
