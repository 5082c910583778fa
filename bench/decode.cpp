// bench_decode [--gpu N | --threads N] [--model FOLDER] [--format FORMAT] [--rows 1,8,64]
//   [--context 512] [--prompt 2048] [--steps 30]
// Steps of one model on one device: decoding with so many rows, each with a context behind it, and
// reading a prompt; as a share of what the device's memory allows, which is measured in the same
// run. Prints one JSON line a case.
#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/device_spec.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/model/forward.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace tandem;
using clock_type = std::chrono::steady_clock;

struct options {
  int gpu = -1;
  int threads = 1;
  std::string model = "bench/configs/llama_135m";
  std::string format = "dummy";
  std::vector<int> rows = {1, 8, 64};
  int context = 512;
  int prompt = 2048;
  int steps = 30;
};

[[noreturn]] void stop(const std::string& why) {
  fmt::print(stderr, "bench_decode: {}\n", why);
  std::exit(2);
}

template <class T>
T must(result<T> made) {
  if (!made) stop(made.error().detail);
  return *std::move(made);
}

double seconds_since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class bench {
 public:
  explicit bench(const options& how) : how_(how) {
    const auto here = this_machine();
    auto cores = here.cores;
    if (how.gpu < 0) cores.resize(std::min<std::size_t>(cores.size(), how.threads));
    device_ = how.gpu < 0 ? kernels::cpu::make_backend({.cores = cores})
                          : kernels::cuda::make_backend({.gpu = how.gpu, .host_cores = cores});
    device_->attach_calling_thread();
    const auto memory = how.gpu < 0 ? memory::host_memory() : memory::gpu_memory(how.gpu);
    book_ = std::make_unique<memory::ledger>(std::uint64_t{1} << 50, memory);
    copied_ = copy_rate();
    const auto source = must(model::model_source::open(how.model));
    const auto format = model::load_format_from(how.format);
    if (!format) stop("no such format: " + how.format);
    const auto start = clock_type::now();
    weights_ = must(source->load(*device_, *book_, *format));
    device_->finish();
    fmt::print(stderr, "{}: {} in {}, {} MB, loaded in {:.1f} s; copies {:.0f} GB/s\n",
               device_->name(), how.model, weights_->precision,
               weights_->memory.bytes().size() / 1'000'000, seconds_since(start), copied_ / 1e9);
    const int most = std::max(how.prompt, *std::max_element(how.rows.begin(), how.rows.end()));
    const std::int64_t each = blocks_of(std::max(how.context + 64, how.prompt));
    const auto sequences = *std::max_element(how.rows.begin(), how.rows.end());
    pass_ =
        must(model::forward_pass::create(*device_, *book_, weights_,
                                         {.rows = most,
                                          .logit_rows = sequences,
                                          .context_positions = each * kernels::kv_block_positions,
                                          .kv_blocks = each * sequences}));
    for (int s = 0; s < sequences; ++s) {
      std::vector<std::int32_t> blocks(static_cast<std::size_t>(each));
      std::iota(blocks.begin(), blocks.end(), static_cast<std::int32_t>(s * each));
      blocks_.push_back(std::move(blocks));
    }
  }

  void decode(int rows) {
    const auto& c = weights_->config;
    std::vector<double> times;
    for (int step = 0; step < how_.steps + 3; ++step) {
      const double taken = run(rows, 1, how_.context + step);
      if (step >= 3) times.push_back(taken);
    }
    const double each = median(times);
    // What a step must read: all weights but the embedding (a row each), and the KV behind it.
    const double embedding = weights_->config.tied_head
                                 ? 0.0
                                 : static_cast<double>(device_->packed_bytes(
                                       weights_->embedding_VD.format, weights_->embedding_VD.rows,
                                       weights_->embedding_VD.columns));
    const double kv = 2.0 * 2.0 * static_cast<double>(c.layers.size()) * c.key_heads * c.head_size *
                      (how_.context + how_.steps / 2.0) * rows;
    const double bytes = static_cast<double>(weights_->memory.bytes().size()) - embedding + kv;
    fmt::print(
        "{{\"case\":\"decode\",\"device\":\"{}\",\"model\":\"{}\",\"precision\":\"{}\",\"rows\":{},"
        "\"context\":{},\"ms\":{:.4f},\"tokens_per_second\":{:.1f},\"share_of_copies\":{:.3f}}}\n",
        device_->name(), how_.model, weights_->precision, rows, how_.context, each * 1e3,
        rows / each, bytes / each / copied_);
  }

  void read_prompt() {
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      const double taken = run(1, how_.prompt, 0);
      if (i >= 2) times.push_back(taken);
    }
    const double each = median(times);
    const double work = 2.0 * static_cast<double>(weights_->parameter_count) * how_.prompt;
    fmt::print(
        "{{\"case\":\"prompt\",\"device\":\"{}\",\"model\":\"{}\",\"precision\":\"{}\",\"rows\":{},"
        "\"ms\":{:.3f},\"tokens_per_second\":{:.0f},\"teraflops\":{:.1f}}}\n",
        device_->name(), how_.model, weights_->precision, how_.prompt, each * 1e3,
        how_.prompt / each, work / each / 1e12);
  }

 private:
  static std::int64_t blocks_of(std::int64_t positions) {
    return (positions + kernels::kv_block_positions - 1) / kernels::kv_block_positions;
  }

  // Bytes read and written a second by a copy within the device's memory.
  double copy_rate() {
    const std::size_t bytes = how_.gpu < 0 ? std::size_t{256} << 20 : std::size_t{2} << 30;
    auto arena =
        must(memory::arena::reserve(*book_, memory::owner::workspace, 2 * bytes, "copies"));
    const auto from = arena.bytes().first(bytes);
    auto* const to = arena.bytes().data() + bytes;
    device_->copy(from, to);
    device_->finish();
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      const auto start = clock_type::now();
      device_->copy(from, to);
      device_->finish();
      times.push_back(seconds_since(start));
    }
    return 2.0 * static_cast<double>(bytes) / median(times);
  }

  // One step: so many sequences, each with `count` rows from `position` on. Seconds.
  double run(int sequences, int count, int position) {
    std::vector<std::int32_t> ids;
    std::vector<std::int32_t> positions;
    std::vector<kernels::attention_span> spans;
    std::vector<std::int32_t> wanted;
    for (int s = 0; s < sequences; ++s) {
      spans.push_back({static_cast<std::int32_t>(ids.size()), count, position,
                       blocks_[static_cast<std::size_t>(s)].data()});
      for (int i = 0; i < count; ++i) {
        ids.push_back((7 * s + 13 * i + position) % 1000);
        positions.push_back(position + i);
      }
      wanted.push_back(static_cast<std::int32_t>(ids.size()) - 1);
    }
    const auto start = clock_type::now();
    model::forward_input input;
    input.ids_T = ids;
    input.positions_T = positions;
    input.spans = spans;
    input.logit_rows = wanted;
    pass_->begin(input);
    while (pass_->advance()) {
    }
    device_->to_host(pass_->logits());
    return seconds_since(start);
  }

  options how_;
  std::unique_ptr<kernels::backend> device_;
  std::unique_ptr<memory::ledger> book_;
  double copied_ = 0.0;
  std::shared_ptr<const model::weights> weights_;
  std::unique_ptr<model::forward_pass> pass_;
  std::vector<std::vector<std::int32_t>> blocks_;
};

options options_from(int argc, char** argv) {
  options how;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--gpu")
      how.gpu = std::stoi(value);
    else if (name == "--threads")
      how.threads = std::stoi(value);
    else if (name == "--model")
      how.model = value;
    else if (name == "--format")
      how.format = value;
    else if (name == "--context")
      how.context = std::stoi(value);
    else if (name == "--prompt")
      how.prompt = std::stoi(value);
    else if (name == "--steps")
      how.steps = std::stoi(value);
    else if (name == "--rows") {
      how.rows.clear();
      std::istringstream list(value);
      for (std::string one; std::getline(list, one, ',');) how.rows.push_back(std::stoi(one));
    } else {
      stop("unknown option " + name);
    }
  }
  if (how.rows.empty()) stop("--rows wants numbers");
  return how;
}

}  // namespace

int main(int argc, char** argv) {
  const auto how = options_from(argc, argv);
  bench run(how);
  for (const int rows : how.rows) run.decode(rows);
  if (how.prompt > 0) run.read_prompt();
}
