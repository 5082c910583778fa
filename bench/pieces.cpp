// What looking at the mailbox costs: one accumulate order of full training, run piece by piece by a
// GPU actor that nobody interrupts, beside the same pieces in a plain loop. Alternating, one run.
//   bench_pieces --model ~/.tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf --rounds 9
#include "actors/gpu.hpp"
#include "runtime/device_spec.hpp"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace tandem;
using steady = std::chrono::steady_clock;

struct options {
  std::string model;
  int rounds = 9;
  int slots = 2;
  int length = 128;
  int threads = 0;  // 0: all cores
};

double seconds_since(steady::time_point began) {
  return std::chrono::duration<double>(steady::now() - began).count();
}

train::open_order opening(const options& wanted) {
  train::open_order order;
  order.job = "bench";
  order.model_path = wanted.model;
  order.settings.method = train::training_method::full;
  order.settings.slots = wanted.slots;
  order.settings.micro_batch = 1;
  order.settings.sequence_length = wanted.length;
  return order;
}

train::order round_of(const options& wanted) {
  train::order what;
  what.job = "bench";
  what.step = 1;
  what.scale = 1.0 / (wanted.slots * wanted.length);
  for (int slot = 0; slot < wanted.slots; ++slot) {
    train::slot_rows rows;
    for (int t = 0; t < wanted.length; ++t) rows.ids.push_back((slot * 977 + t * 131) % 40'000);
    rows.targets.assign(rows.ids.begin() + 1, rows.ids.end());
    rows.targets.push_back(-1);
    rows.example_rows = {wanted.length};
    what.slots.push_back(std::move(rows));
  }
  return what;
}

template <class T>
T wanted_or_exit(result<T> made) {
  if (made) return *std::move(made);
  fmt::print(stderr, "bench_pieces: {}\n", made.error().detail);
  std::exit(1);
}

// The longest piece into `longest`.
double by_loop(serve::device& device, const options& wanted, double& longest) {
  const auto began = steady::now();
  if (auto begun = device.begin_training(round_of(wanted)); !begun) return 0.0;
  for (bool more = true; more;) {
    const auto piece_began = steady::now();
    more = device.advance_training();
    longest = std::max(longest, seconds_since(piece_began));
  }
  (void)wanted_or_exit(device.finish_training());
  return seconds_since(began);
}

double by_actor(caf::scoped_actor& self, const actors::gpu_actor& device, const options& wanted) {
  const auto began = steady::now();
  double took = 0.0;
  self->request(device, caf::infinite, actors::run_training{1, round_of(wanted)})
      .receive([&](const train::outcome&) { took = seconds_since(began); },
               [](const caf::error& why) {
                 fmt::print(stderr, "bench_pieces: {}\n", actors::from_caf(why).detail);
                 std::exit(1);
               });
  return took;
}

double median(std::vector<double> of) {
  std::ranges::sort(of);
  return of[of.size() / 2];
}

void measure(const options& wanted) {
  const auto machine = this_machine();
  auto cores = machine.cores;
  if (wanted.threads > 0)
    cores.resize(std::min(cores.size(), static_cast<std::size_t>(wanted.threads)));
  const device_spec spec{.name = "cpu", .cores = cores, .memory_bytes = machine.memory_bytes / 3};
  caf::actor_system_config config;
  caf::actor_system system(config);
  caf::scoped_actor self(system);
  auto device = system.spawn<caf::detached>(actors::gpu, serve::make_device(spec));
  const auto deadline = std::chrono::minutes(5);
  const auto failed = [](const caf::error& why) {
    fmt::print(stderr, "bench_pieces: {}\n", actors::from_caf(why).detail);
    std::exit(1);
  };
  lease::lease held{"cpu", lease::role::shared, "serve", 1, "bench", 1, 1};
  self->request(device, deadline, actors::take_lease{held})
      .receive([](actors::lease_taken&) {}, failed);
  serve::load_order load{.path = wanted.model, .kv_bytes = 64 << 20};
  self->request(device, deadline, actors::load_model{1, load})
      .receive([](serve::loaded_model&) {}, failed);
  self->request(device, deadline, actors::open_training{1, opening(wanted)})
      .receive([](actors::training_opened&) {}, failed);

  std::vector<double> loops;
  std::vector<double> messages;
  std::vector<double> longest;  // piece of each loop
  // The plain loop has a device of its own, on a thread of its own, over the same cores.
  std::thread([&] {
    auto plain = serve::make_device(spec);
    plain->attach_calling_thread();
    (void)wanted_or_exit(plain->load(load));
    (void)wanted_or_exit(plain->open_training(opening(wanted)));
    by_loop(*plain, wanted, longest.emplace_back());
    longest.clear();
    by_actor(self, device, wanted);
    for (int round = 0; round < wanted.rounds; ++round) {
      loops.push_back(by_loop(*plain, wanted, longest.emplace_back()));
      messages.push_back(by_actor(self, device, wanted));
    }
  }).join();
  fmt::print(
      "{} slots of {} tokens: plain loop {:.3f} s, by the GPU actor {:.3f} s: ratio {:.4f} "
      "(medians of {}); longest piece {:.1f} ms\n",
      wanted.slots, wanted.length, median(loops), median(messages),
      median(messages) / median(loops), wanted.rounds, median(longest) * 1e3);
  self->send_exit(device, caf::exit_reason::user_shutdown);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"What looking at the mailbox between two pieces of training costs"};
  options wanted;
  app.add_option("--model", wanted.model, "A model's file or folder")->required();
  app.add_option("--rounds", wanted.rounds)->check(CLI::Range(1, 1000));
  app.add_option("--slots", wanted.slots)->check(CLI::IsMember({1, 2, 4, 8}));
  app.add_option("--length", wanted.length)->check(CLI::Range(2, 4096));
  app.add_option("--threads", wanted.threads, "So many cores")->check(CLI::Range(1, 1024));
  CLI11_PARSE(app, argc, argv);
  measure(wanted);
}
