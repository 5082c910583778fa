// `tandem bench train`: how fast a device trains, beside the float peak that the same run measures.
#include "gateway/command/bench.hpp"
#include "gateway/command/model_path.hpp"
#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cpu/measure.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/device_spec.hpp"
#include "runtime/memory/memory_source.hpp"
#include "runtime/settings.hpp"
#include "runtime/train/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ostream>
#include <thread>

namespace tandem::gateway::command {
namespace {

using text::value;
using steady = std::chrono::steady_clock;

struct train_bench_options {
  std::string model;
  std::string method = "full";
  int rows = 4;
  int length = 256;
  int steps = 3;
  int rank = 16;
  int threads = 0;     // 0: all cores
  std::string device;  // empty: the CPU
  std::string precision = "bf16";
  bool recompute = false;
  std::string serve_format = "bf16";
};

struct train_measurement {
  std::string backend;
  std::string precision;  // of the base
  std::int64_t parameters = 0;
  train::memory_plan memory;
  std::vector<double> step_seconds;
  double publish_seconds = 0.0;
  double peak = 0.0;  // float operations a second
  double flops_per_step = 0.0;
};

// Random tokens, every one counted: what a step costs does not depend on what they say.
std::vector<train::slot_rows> random_rows(int rows, int length, std::int64_t vocabulary) {
  std::vector<train::slot_rows> slots(static_cast<std::size_t>(rows));
  std::uint64_t state = 1;
  for (auto& slot : slots) {
    for (int t = 0; t < length; ++t) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      slot.ids.push_back(
          static_cast<train::token_id>((state >> 33U) % static_cast<std::uint64_t>(vocabulary)));
    }
    slot.targets.assign(slot.ids.begin() + 1, slot.ids.end());
    slot.targets.push_back(-1);
    slot.example_rows = {length};
  }
  return slots;
}

result<train::outcome> run(train::trainer& trainer, train::order what) {
  what.job = "bench";
  if (auto begun = trainer.begin(std::move(what)); !begun) return begun.error();
  while (trainer.advance()) {
  }
  return trainer.finish();
}

result<void> one_step(train::trainer& trainer, const train_bench_options& wanted,
                      std::int64_t vocabulary, std::int64_t step) {
  train::order what;
  what.step = step;
  what.slots = random_rows(wanted.rows, wanted.length, vocabulary);
  what.scale = 1.0 / (static_cast<double>(wanted.rows) * (wanted.length - 1));
  if (auto done = run(trainer, what); !done) return done.error();
  for (const auto kind : {train::order_kind::norm, train::order_kind::update}) {
    train::order next;
    next.kind = kind;
    next.step = step;
    next.learning_rate = 1e-5;
    if (auto done = run(trainer, next); !done) return done.error();
  }
  return {};
}

double seconds_since(steady::time_point began) {
  return std::chrono::duration<double>(steady::now() - began).count();
}

result<train_measurement> measure(const train_bench_options& wanted,
                                  const std::filesystem::path& path) {
  train_measurement measured;
  const auto machine = this_machine();
  std::unique_ptr<kernels::backend> device;
  std::shared_ptr<memory::ledger> book;
  if (wanted.device.empty()) {
    kernels::cpu::cpu_options options;
    options.cores = machine.cores;
    if (wanted.threads > 0)
      options.cores.resize(
          std::min(options.cores.size(), static_cast<std::size_t>(wanted.threads)));
    for (const auto& m : kernels::cpu::measure_kernels(options, true))
      if (m.kernel == "peak float") measured.peak = m.giga_operations_per_second * 1e9;
    device = kernels::cpu::make_backend(options);
    book = std::make_shared<memory::ledger>(machine.memory_bytes);
  } else {
    const auto found = devices_from({wanted.device}, wanted.threads, 1.0, machine);
    if (!found) return found.error();
    const auto& one = found->front();
    device = one.gpu < 0 ? kernels::cpu::make_backend({.cores = one.cores})
                         : kernels::cuda::make_backend({.gpu = one.gpu, .host_cores = one.cores});
    book = std::make_shared<memory::ledger>(
        one.memory_bytes, one.gpu < 0 ? memory::host_memory() : memory::gpu_memory(one.gpu));
  }
  device->attach_calling_thread();
  auto source = model::model_source::open(path);
  if (!source) return source.error();
  std::shared_ptr<const model::weights> base;
  const bool lora = wanted.method == "lora";
  if (lora) {
    auto loaded = (*source)->load(*device, *book, model::load_format::native);
    if (!loaded) return loaded.error();
    base = *loaded;
    measured.precision = base->precision;
  } else {
    measured.precision = "f32";
  }

  train::open_order order;
  order.job = "bench";
  order.model_path = path.string();
  auto& s = order.settings;
  s.method = lora ? train::training_method::lora : train::training_method::full;
  s.rank = wanted.rank;
  s.alpha = 2.0 * wanted.rank;
  s.targets = {"q_proj",  "k_proj",    "v_proj",   "o_proj",      "gate_proj",
               "up_proj", "down_proj", "qkv_proj", "gate_up_proj"};
  s.batch_size = wanted.rows;
  s.slots = wanted.rows;
  s.sequence_length = wanted.length;
  s.recompute = wanted.recompute;
  s.precision =
      wanted.precision == "f32" ? train::product_precision::f32 : train::product_precision::bf16;
  s.serve_format = wanted.serve_format;
  auto trainer = train::trainer::open(*device, book, base, order);
  if (!trainer) return trainer.error();
  measured.backend = device->name();
  measured.memory = (*trainer)->facts().memory;
  measured.parameters = (*trainer)->facts().trainable_parameters;

  const auto& config = (*source)->config();
  for (int i = 0; i <= wanted.steps; ++i) {  // the first is not counted
    const auto began = steady::now();
    if (auto done = one_step(**trainer, wanted, config.vocabulary_size, i + 1); !done)
      return done.error();
    if (i > 0) measured.step_seconds.push_back(seconds_since(began));
  }
  train::order publish;
  publish.kind = train::order_kind::publish;
  publish.step = wanted.steps + 1;
  publish.version = 2;
  const auto began = steady::now();
  if (auto done = run(**trainer, publish); !done) return done.error();
  measured.publish_seconds = seconds_since(began);
  return measured;
}

double median(std::vector<double> of) {
  std::ranges::sort(of);
  return of[of.size() / 2];
}

int run_bench_train(const invocation& call, const train_bench_options& wanted) {
  if ((wanted.rows & (wanted.rows - 1)) != 0)
    return refuse_usage(call.io, "--rows is a power of two: 1, 2, 4, 8 …");
  auto path = find_model(wanted.model, tandem_home() / "models");
  if (!path) return refuse(call.io, path.error());
  result<train_measurement> measured = error{};
  std::thread([&] { measured = measure(wanted, *path); }).join();  // pinned; this one stays
  if (!measured) return refuse(call.io, measured.error());
  const auto& m = *measured;
  const double step = median(m.step_seconds);
  const double tokens = static_cast<double>(wanted.rows) * wanted.length;
  constexpr double mib = 1 << 20;
  if (call.json) {
    value::array steps;
    for (const double one : m.step_seconds) steps.emplace_back(one);
    call.io.out << value(value::object{
                             {"method", wanted.method},
                             {"backend", m.backend},
                             {"base_precision", m.precision},
                             {"rows", wanted.rows},
                             {"length", wanted.length},
                             {"trainable_parameters", m.parameters},
                             {"step_seconds", std::move(steps)},
                             {"tokens_per_second", tokens / step},
                             {"publish_seconds", m.publish_seconds},
                             {"memory_bytes", static_cast<std::int64_t>(m.memory.total())},
                             {"parameter_bytes", static_cast<std::int64_t>(m.memory.parameters)},
                             {"gradient_bytes", static_cast<std::int64_t>(m.memory.gradients)},
                             {"optimizer_bytes", static_cast<std::int64_t>(m.memory.optimizer)},
                             {"activation_bytes", static_cast<std::int64_t>(m.memory.activations)},
                             {"peak_float_operations_per_second", m.peak}})
                       .to_json()
                << '\n';
    return done;
  }
  call.io.out << fmt::format(
      "{} fine-tuning on {}, base {}: {} trainable parameters\n"
      "step of {} x {} tokens: {:.3f} s (median of {}), {:.1f} tokens/s\n"
      "memory: parameters {:.0f} MiB, gradients {:.0f}, optimizer {:.0f}, activations {:.0f}, "
      "workspace {:.0f}, serving copies {:.0f}\n"
      "publish: {:.1f} ms\n",
      wanted.method, m.backend, m.precision, m.parameters, wanted.rows, wanted.length, step,
      m.step_seconds.size(), tokens / step, static_cast<double>(m.memory.parameters) / mib,
      static_cast<double>(m.memory.gradients) / mib, static_cast<double>(m.memory.optimizer) / mib,
      static_cast<double>(m.memory.activations) / mib,
      static_cast<double>(m.memory.workspace) / mib,
      static_cast<double>(m.memory.serving_copies) / mib, m.publish_seconds * 1e3);
  if (wanted.method == "full" && m.peak > 0)
    call.io.out << fmt::format(
        "6 operations a parameter and token: {:.0f} Gop/s, {:.0f}% of this run's float peak\n",
        6.0 * static_cast<double>(m.parameters) * tokens / step * 1e-9,
        600.0 * static_cast<double>(m.parameters) * tokens / step / m.peak);
  else if (wanted.method == "full")
    call.io.out << fmt::format("6 operations a parameter and token: {:.0f} Gop/s\n",
                               6.0 * static_cast<double>(m.parameters) * tokens / step * 1e-9);
  return done;
}

}  // namespace

void add_bench_train(CLI::App& bench, invocation& call) {
  CLI::App* command = add_command(bench, "train", "Time training steps on this machine",
                                  "tandem bench train --method lora --rows 4 --length 256");
  add_json_option(*command, call);
  auto options = std::make_shared<train_bench_options>();
  command->add_option("-M,--model", options->model,
                      "Path or name of the base; else the quickstart");
  command->add_option("--method", options->method, "full or lora")
      ->check(CLI::IsMember({"full", "lora"}));
  command->add_option("--rows", options->rows, "Rows of a step")->check(CLI::Range(1, 64));
  command->add_option("--length", options->length, "Tokens of a row")->check(CLI::Range(2, 65536));
  command->add_option("--steps", options->steps, "Steps that count")->check(CLI::Range(1, 1000));
  command->add_option("--rank", options->rank, "Of LoRA")->check(CLI::Range(1, 1024));
  command->add_option("--threads", options->threads, "So many cores; all when not given")
      ->check(CLI::Range(1, 1024));
  command->add_option("--device", options->device,
                      "One device, such as cuda:0 or cpu:0-3; all cores when not given");
  command->add_option("--precision", options->precision, "Of a GPU's products: bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}));
  command->add_flag("--recompute", options->recompute,
                    "Keep each layer's input only; compute its inside again");
  command->add_option("--serve-format", options->serve_format, "Of what full training publishes");
  command->callback([options, &call] { call.status = run_bench_train(call, *options); });
}

}  // namespace tandem::gateway::command
