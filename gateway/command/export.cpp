// `tandem export`: a trained model as files that other programs load.
#include "runtime/train/export.hpp"
#include "gateway/command/commands.hpp"
#include "gateway/command/model_path.hpp"
#include "gateway/command/print.hpp"
#include "gateway/command/progress_line.hpp"
#include "gateway/command/trained_model.hpp"
#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/formats/number_format.hpp"
#include "runtime/text/value.hpp"

#include <fmt/format.h>

#include <ostream>

namespace tandem::gateway::command {
namespace {

struct export_call {
  std::string model;
  std::string folder;
  std::string base;
  std::string dtype = "f32";
  bool gguf = false;
  bool merged = false;
  bool adapter = false;
};

train::export_form form_of(const export_call& wanted, const train::checkpoint_facts& facts) {
  if (wanted.gguf) return train::export_form::gguf;
  if (wanted.adapter) return train::export_form::adapter;
  const bool lora = facts.settings.method == train::training_method::lora;
  return lora && !wanted.merged ? train::export_form::adapter : train::export_form::merged;
}

void print_done(const invocation& call, const train::exported& done,
                const train::checkpoint_facts& facts, train::export_form form) {
  constexpr const char* names[] = {"adapter", "merged", "gguf"};
  const char* const name = names[static_cast<std::size_t>(form)];
  if (!call.json) {
    call.io.out << done.path.string() << "\n";
    call.io.out << fmt::format("{} of {}, step {} of {}: {} in {} files\n", name, facts.job,
                               facts.step, facts.step_count, human_bytes(done.bytes),
                               done.files.size())
                << std::flush;
    return;
  }
  text::value::array files;
  for (const auto& file : done.files) files.emplace_back(file);
  call.io.out << text::value(text::value::object{{"path", done.path.string()},
                                                 {"form", name},
                                                 {"job", facts.job},
                                                 {"step", facts.step},
                                                 {"bytes", static_cast<std::int64_t>(done.bytes)},
                                                 {"files", std::move(files)}})
                     .to_json()
              << std::endl;
}

int run_export(const invocation& call, const export_call& wanted) {
  const console& io = call.io;
  const auto format = formats::stored_format_from(wanted.dtype);
  if (!format)
    return refuse_usage(
        io, fmt::format("--dtype {}: give f32, bf16, f16 or, with --gguf, q8_0", wanted.dtype));
  if (wanted.adapter && (wanted.merged || wanted.gguf))
    return refuse_usage(io, fmt::format("--adapter and {} exclude each other",
                                        wanted.gguf ? "--gguf" : "--merged"));
  const auto trained = find_trained(wanted.model, io.home / "jobs");
  if (!trained) return refuse(io, trained.error());
  for (const auto& broken : trained->broken)
    io.err << "tandem: passed over, broken: " << broken << "\n";
  const auto facts = train::read_checkpoint_facts(trained->checkpoint);
  if (!facts) return refuse(io, facts.error());
  const auto base =
      find_model(wanted.base.empty() ? facts->model_path : wanted.base, io.home / "models");
  if (!base)
    return refuse(io, error{base.error().code,
                            fmt::format("the base model of {}: {}; --base PATH says where it is "
                                        "now",
                                        facts->job, base.error().detail),
                            {}});

  train::export_options options;
  options.form = form_of(wanted, *facts);
  options.format = *format;
  constexpr std::uint64_t parts = 1'000;
  constexpr std::uint64_t worth_watching_bytes = 16 << 20;
  result<train::exported> done = error{};
  {
    progress_line line(io.err, io.err_is_terminal);
    std::uint64_t numbers = 0;
    for (const auto& one : facts->layout) numbers += one.floats * sizeof(float);
    // What is done in a moment says so once, at its end.
    if (numbers >= worth_watching_bytes)
      options.progress = [&](double fraction) {
        const auto part = static_cast<std::uint64_t>(fraction * parts);
        line.show("exporting", numbers * part / parts, numbers);
      };
    const auto device = kernels::cpu::make_backend({});
    device->attach_calling_thread();
    done = train::export_checkpoint(*device, trained->checkpoint, *base, wanted.folder, options);
  }
  if (!done) return refuse(io, done.error());
  print_done(call, *done, *facts, options.form);
  return command::done;
}

}  // namespace

void add_export(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "export", "A trained model as a folder that transformers and peft load, or as GGUF",
      "tandem export ftjob-0123456789abcdef01234567 my-model --merged --dtype bf16\n\nOffline, "
      "from "
      "the newest checkpoint under $TANDEM_HOME/jobs; MODEL:ckpt-step-N is another one.\nWithout "
      "--merged, --adapter or --gguf: the adapter of a LoRA job, the whole model of a full one.");
  add_json_option(*command, call);
  auto wanted = std::make_shared<export_call>();
  command
      ->add_option("MODEL", wanted->model,
                   "An ft:... name, a job's id, or a folder with a checkpoint")
      ->required();
  command->add_option("DIR", wanted->folder, "The folder to write; it must be new or empty")
      ->required();
  command->add_flag("--merged", wanted->merged, "The whole model in Hugging Face's layout");
  command->add_flag("--adapter", wanted->adapter, "The LoRA adapter alone, as peft keeps it");
  command->add_flag("--gguf", wanted->gguf, "The whole model as one .gguf file");
  command->add_option("--dtype", wanted->dtype, "f32, bf16, f16; q8_0 with --gguf")
      ->capture_default_str();
  command->add_option("--base", wanted->base, "Where the base model lies, if it was moved");
  command->callback([wanted, &call] { call.status = run_export(call, *wanted); });
}

}  // namespace tandem::gateway::command
