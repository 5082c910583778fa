// What a device waits for the host between two steps: a device whose steps take a fixed time and
// compute nothing serves N streams through the real actors, texts and gateway actor included. The
// gap is the time from a step's last piece to the next one's first.
//   bench_step_gap --model ~/.tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf --streams 64
// Prints one JSON object; times are in microseconds.
#include "actors/coordinator.hpp"
#include "actors/gateway.hpp"
#include "actors/node.hpp"
#include "actors/serve_coordinator.hpp"
#include "runtime/formats/gguf.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/text/tokenizer.hpp"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace tandem;
using clock_type = std::chrono::steady_clock;

struct measured {
  std::mutex mutex;
  std::vector<double> gaps_us;  // before steps of all streams
};

// Its steps take `step_time`, in which its thread is as busy as one that waits for a GPU.
class timed_device final : public serve::device {
 public:
  timed_device(std::string name, std::chrono::microseconds step_time, int streams,
               std::int32_t vocabulary, std::shared_ptr<measured> into)
      : name_(std::move(name)),
        step_time_(step_time),
        streams_(streams),
        vocabulary_(vocabulary),
        into_(std::move(into)) {}

  void attach_calling_thread() override {}
  serve::device_facts facts() const override { return {name_, "timed", 1, false, 1 << 30, {}}; }
  result<serve::loaded_model> load(const serve::load_order& order) override {
    serve::loaded_model loaded;
    loaded.weights_version = 1;
    loaded.context_length = 8192;
    loaded.kv_blocks = std::int64_t{order.max_sequences} * (8192 / kernels::kv_block_positions);
    loaded.max_logit_rows = order.max_sequences;
    loaded.facts = facts();
    loaded.steps_ahead = true;
    return loaded;
  }
  void unload() override {}

  result<void> begin(serve::step_plan plan) override {
    plan_ = std::move(plan);
    return {};
  }
  bool advance() override {
    const auto now = clock_type::now();
    if (plan_.rows() == streams_ && full_before_) {
      const std::lock_guard lock(into_->mutex);
      into_->gaps_us.push_back(std::chrono::duration<double, std::micro>(now - ended_).count());
    }
    full_before_ = plan_.rows() == streams_;
    while (clock_type::now() - now < step_time_) continue;
    ended_ = clock_type::now();
    return false;
  }
  serve::step_result finish() override {
    serve::step_result done;
    done.number = plan_.number;
    done.device_ns = std::chrono::nanoseconds(step_time_).count();
    for (const auto& chunk : plan_.chunks) {
      if (!chunk.sample) continue;
      serve::sampled_token drawn;
      drawn.slot = chunk.slot;
      next_ = next_ * 1664525U + 1013904223U;
      drawn.token.id = 300 + static_cast<std::int32_t>(next_ % static_cast<unsigned>(vocabulary_));
      done.sampled.push_back(std::move(drawn));
    }
    return done;
  }
  void reset() override {}

  result<serve::device_facts> add_variant(serve::variant_id, const serve::variant&) override {
    return nothing();
  }
  void remove_variant(serve::variant_id) override {}
  result<serve::variant> load_variant(const std::string&, std::uint64_t,
                                      const pause_point&) override {
    return nothing();
  }
  result<train::opened> open_training(const train::open_order&, const pause_point&) override {
    return nothing();
  }
  void join_training(const std::string&,
                     std::vector<std::shared_ptr<train::trainer_memory>>) override {}
  result<void> begin_training(train::order) override { return nothing(); }
  bool advance_training() override { return false; }
  result<train::outcome> finish_training() override { return nothing(); }
  void drop_training() override {}
  void close_training(const std::string&) override {}

 private:
  static error nothing() { return {errc::unsupported, "a device that only keeps time", ""}; }

  std::string name_;
  std::chrono::microseconds step_time_;
  int streams_;
  std::int32_t vocabulary_;
  std::shared_ptr<measured> into_;
  serve::step_plan plan_;
  bool full_before_ = false;
  clock_type::time_point ended_{};
  std::uint32_t next_ = 1;
};

double share_of(std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0.0;
  const auto at = static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1));
  return sorted[at];
}

}  // namespace

int main(int count, char** arguments) {
  std::string model;
  int streams = 64;
  int tokens = 500;
  int step_us = 2000;
  CLI::App app{"what a device waits for the host between two steps"};
  app.add_option("--model", model, "a GGUF file whose tokenizer makes the texts")->required();
  app.add_option("--streams", streams, "requests at a time")->check(CLI::Range(1, 512));
  app.add_option("--tokens", tokens, "of each")->check(CLI::Range(10, 8000));
  app.add_option("--step-us", step_us, "what a step takes")->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, count, arguments);

  const auto file = formats::gguf_file::open(model);
  using loaded = result<std::shared_ptr<const text::tokenizer>>;
  const auto tokenizer = file ? text::tokenizer::from_gguf(*file) : loaded(file.error());
  if (!tokenizer) {
    fmt::print(stderr, "bench_step_gap: {}: {}\n", model, tokenizer.error().detail);
    return 1;
  }
  caf::actor_system_config config;
  caf::actor_system system(config);
  const auto into = std::make_shared<measured>();
  const auto board = std::make_shared<actors::gateway_board>();
  const auto vocabulary = static_cast<std::int32_t>((*tokenizer)->vocabulary_size()) - 300;

  actors::coordinator_options lending;
  lending.board = std::make_shared<actors::lease_board>();
  auto coordinator = system.spawn(actors::coordinator, lending);
  actors::serve_options options;
  options.model = "timed";
  options.tokenizer = *tokenizer;
  options.load.max_sequences = streams;
  options.load.max_batch_tokens = std::max(512, streams);
  auto serving = system.spawn(actors::serve_coordinator, options, coordinator);
  auto gateway = system.spawn(actors::gateway, serving, board, coordinator);
  actors::node_options node_options;
  node_options.devices.push_back({"cpu:0", {0}, 1 << 20});
  node_options.make = [&](const device_spec& spec) {
    return std::make_unique<timed_device>(spec.name, std::chrono::microseconds(step_us), streams,
                                          vocabulary, into);
  };
  auto node = system.spawn(actors::node, node_options, coordinator);

  const auto ready = [&] {
    const auto report = board->newest();
    return report && !report->lanes.empty() && report->lanes.front().ready;
  };
  while (!ready()) std::this_thread::sleep_for(std::chrono::milliseconds(1));

  std::atomic<int> left = streams;
  std::atomic<std::size_t> letters = 0;
  std::promise<void> all_done;
  const auto began = clock_type::now();
  for (int i = 0; i < streams; ++i) {
    serve::generation_request request;
    request.id = static_cast<serve::request_id>(i + 1);
    request.prompt = {i + 300, i + 301, i + 302};
    request.want_text = true;
    request.sampling.temperature = 0;
    request.stops.max_tokens = tokens;
    ++board->requests_inside;
    caf::anon_send(gateway, actors::submit{std::move(request), [&](serve::generation_delta d) {
                                             letters += d.text.size();
                                             if (d.finish == serve::finish_reason::none) return;
                                             if (--left == 0) all_done.set_value();
                                           }});
  }
  all_done.get_future().wait();
  const double seconds = std::chrono::duration<double>(clock_type::now() - began).count();
  for (const auto& one :
       {caf::actor_cast<caf::actor>(gateway), caf::actor_cast<caf::actor>(serving),
        caf::actor_cast<caf::actor>(node), caf::actor_cast<caf::actor>(coordinator)})
    caf::anon_send_exit(one, caf::exit_reason::user_shutdown);

  const std::lock_guard lock(into->mutex);
  auto& gaps = into->gaps_us;
  std::sort(gaps.begin(), gaps.end());
  const double median = share_of(gaps, 0.5);
  fmt::print(
      "{{\"streams\": {}, \"step_us\": {}, \"steps\": {}, \"gap_us\": {{\"p10\": {:.1f}, "
      "\"median\": {:.1f}, \"p90\": {:.1f}}}, \"idle_share\": {:.4f}, \"text_bytes\": {}, "
      "\"seconds\": {:.2f}}}\n",
      streams, step_us, gaps.size(), share_of(gaps, 0.1), median, share_of(gaps, 0.9),
      median / (median + step_us), letters.load(), seconds);
  return 0;
}
