// `tandem bench serve`: what a running server does under load.
#include "gateway/command/bench.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/load_generator.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

// The served model's name and vocabulary, checked before load is made.
result<void> choose_model(const invocation& call, load_options& options) {
  auto client = connect(call);
  if (!client) return client.error();
  const auto list = client->get_json("/v1/models");
  if (!list) return list.error();
  const value* data = list->find("data");
  const value::array none;
  const value::array& models = data && data->if_array() ? *data->if_array() : none;
  for (const value& model : models) {
    const value* id = model.find("id");
    if (!id || !id->if_string()) continue;
    if (!options.model.empty() && options.model != *id->if_string()) continue;
    options.model = *id->if_string();
    const value* size = model.find("vocab_size");
    if (options.vocabulary_size == 0 && size && size->if_int()) {
      options.vocabulary_size = *size->if_int();
    }
    return {};
  }
  return error{errc::not_found,
               options.model.empty()
                   ? fmt::format("{} serves no model yet", client->address().text)
                   : fmt::format("{} does not serve \"{}\": `tandem models` lists what it does",
                                 client->address().text, options.model),
               {}};
}

value as_json(const load_options& options, const load_report& report) {
  const auto both = [](const std::vector<double>& values) {
    return value(value::object{{"p50", quantile(values, 0.5)}, {"p99", quantile(values, 0.99)}});
  };
  const auto rate = [&](std::int64_t count) { return static_cast<double>(count) / report.wall_s; };
  return value::object{{"model", options.model},
                       {"streams", options.streams},
                       {"prompt_tokens_each", options.prompt_tokens},
                       {"max_tokens", options.max_tokens},
                       {"answered", report.answered},
                       {"failed", report.failed},
                       {"wall_s", report.wall_s},
                       {"requests_per_s", rate(report.answered)},
                       {"prompt_tokens_per_s", rate(report.prompt_tokens)},
                       {"output_tokens_per_s", rate(report.completion_tokens)},
                       {"ttft_ms", both(report.first_ms)},
                       {"inter_token_ms", both(report.between_ms)},
                       {"request_ms", both(report.whole_ms)}};
}

void print_report(std::ostream& out, const load_options& options, const load_report& report) {
  const auto cell = [](double number) { return fmt::format("{:>9.2f}", number); };
  const auto row = [&](const char* name, const std::vector<double>& values) {
    return std::vector<std::string>{name, cell(quantile(values, 0.5)),
                                    cell(quantile(values, 0.99))};
  };
  out << fmt::format("{}: {} streams, prompts of {} tokens, answers of {}\n", options.model,
                     options.streams, options.prompt_tokens, options.max_tokens);
  out << fmt::format("{} answered, {} failed in {:.1f} s\n\n", report.answered, report.failed,
                     report.wall_s);
  print_table(out, {{"", "      p50", "      p99"},
                    row("time to first token (ms)", report.first_ms),
                    row("between tokens (ms)", report.between_ms),
                    row("whole request (ms)", report.whole_ms)});
  out << fmt::format("\n{:.2f} requests/s, {:.1f} prompt tokens/s, {:.1f} output tokens/s\n",
                     static_cast<double>(report.answered) / report.wall_s,
                     static_cast<double>(report.prompt_tokens) / report.wall_s,
                     static_cast<double>(report.completion_tokens) / report.wall_s)
      << std::flush;
}

int run_bench_serve(const invocation& call, load_options options) {
  options.address = call.address;
  options.api_key = call.api_key;
  if (const auto chosen = choose_model(call, options); !chosen) {
    return refuse(call.io, chosen.error());
  }
  if (options.vocabulary_size == 0) options.vocabulary_size = 10'000;
  const interrupt_watch ctrl_c;
  options.stopped = [&ctrl_c] { return ctrl_c.seen(); };
  // One small request first: a refusal is shown at once, and connections and caches are warm.
  load_options warm_up = options;
  warm_up.streams = 1;
  warm_up.requests = 1;
  warm_up.max_tokens = std::min(options.max_tokens, 2);
  const load_report first = run_load(warm_up);
  if (first.failed > 0) return refuse(call.io, {errc::unavailable, first.first_failure, {}});

  const load_report report = run_load(options);
  if (call.json) {
    call.io.out << as_json(options, report).to_json() << std::endl;
  } else {
    print_report(call.io.out, options, report);
  }
  if (report.failed == 0) return done;
  return refuse(call.io,
                {errc::unavailable,
                 fmt::format("{} requests failed, first: {}", report.failed, report.first_failure),
                 {}});
}

}  // namespace

void add_bench_serve(CLI::App& bench, invocation& call) {
  CLI::App* command = add_command(bench, "serve", "Load a running server and time its answers",
                                  "tandem bench serve --streams 16 --prompt-tokens 512 "
                                  "--max-tokens 64 --seconds 20");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto options = std::make_shared<load_options>();
  command->add_option("--model", options->model, "A served model; the first one when not given");
  command->add_option("--streams", options->streams, "Requests at once")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--prompt-tokens", options->prompt_tokens, "Of each prompt")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--max-tokens", options->max_tokens, "Of each answer")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  CLI::Option* requests = command->add_option("--requests", options->requests, "So many in all")
                              ->check(CLI::Range(1, 100'000'000));
  command->add_option("--seconds", options->seconds, "Begin requests for so long")
      ->check(CLI::Range(0.1, 86'400.0))
      ->excludes(requests)
      ->capture_default_str();
  command->add_option("--vocabulary", options->vocabulary_size,
                      "Draw prompt ids below this; the model's own when the server tells");
  command->add_option("--seed", options->seed, "Of the random prompts")->capture_default_str();
  command->callback([options, &call] { call.status = run_bench_serve(call, *options); });
}

}  // namespace tandem::gateway::command
