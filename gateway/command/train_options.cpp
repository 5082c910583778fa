#include "gateway/command/train_options.hpp"

#include <CLI/Option.hpp>
#include <CLI/Validators.hpp>

#include <charconv>

namespace tandem::gateway::command {
namespace {

using text::value;

std::optional<std::int64_t> whole_number(const std::string& word) {
  std::int64_t n = 0;
  const char* const end = word.data() + word.size();
  const auto [stop, failed] = std::from_chars(word.data(), end, n);
  if (failed != std::errc() || stop != end) return std::nullopt;
  return n;
}

std::optional<double> real_number(const std::string& word) {
  double x = 0;
  const char* const end = word.data() + word.size();
  const auto [stop, failed] = std::from_chars(word.data(), end, x);
  if (failed != std::errc() || stop != end) return std::nullopt;
  return x;
}

value auto_or_number(const std::string& word) {
  if (const auto whole = whole_number(word)) return *whole;
  if (const auto real = real_number(word)) return *real;
  return word;
}

// CLI11's validators say what is wrong; an empty answer is consent.
std::string auto_or_whole(const std::string& word) {
  return word == "auto" || whole_number(word)
             ? ""
             : "\"" + word + "\" is neither auto nor a whole number";
}
std::string auto_or_real(const std::string& word) {
  return word == "auto" || real_number(word) ? "" : "\"" + word + "\" is neither auto nor a number";
}

void add_names_and_files(CLI::App& command, train_options& o) {
  command.add_option("DATA", o.data, "Examples, one JSON object a line")
      ->required()
      ->type_name("DATA.jsonl");
  command.add_option("-M,--model", o.model, "The model to tune; not needed when one is served");
  command.add_option("--validation", o.validation, "Examples to measure on, never trained on")
      ->type_name("FILE");
  command.add_option("--suffix", o.suffix, "A word of yours in the new model's name");
  command.add_option("--seed", o.seed, "The same seed and data give the same weights");
  command.add_flag("--detach", o.detach, "Start the job and leave, do not follow it");
}

void add_published(CLI::App& command, train_options& o) {
  command.add_option("--epochs", o.epochs, "How often every example is seen, 1 to 50")
      ->check(CLI::Validator(auto_or_whole, "N|auto", "epochs"));
  command.add_option("--batch-size", o.batch_size, "Examples of one step, 1 to 256")
      ->check(CLI::Validator(auto_or_whole, "N|auto", "batch size"));
  CLI::Option* multiplier =
      command
          .add_option("--learning-rate-multiplier", o.learning_rate_multiplier,
                      "Times the default rate of the method")
          ->check(CLI::Validator(auto_or_real, "X|auto", "learning rate multiplier"));
  command.add_option("--learning-rate", o.learning_rate, "The rate itself")->excludes(multiplier);
}

void add_method(CLI::App& command, train_options& o) {
  command.add_option("--method", o.method, "Adapters (the default), or all weights")
      ->check(CLI::IsMember({"lora", "full"}));
  command.add_option("--rank", o.rank, "LoRA: the adapters' rank");
  command.add_option("--alpha", o.alpha, "LoRA: their scale, divided by the rank");
  command.add_option("--targets", o.targets, "LoRA: which layers, as q_proj,v_proj")
      ->delimiter(',');
  command.add_option("--serve-format", o.serve_format, "Full: the precision it is served in")
      ->check(CLI::IsMember({"f32", "bf16", "fp8", "q8_0", "q4_1"}));
}

void add_steps(CLI::App& command, train_options& o) {
  command.add_option("--schedule", o.schedule, "The learning rate over the steps")
      ->check(CLI::IsMember({"constant", "linear", "cosine", "warmup_stable_decay"}));
  command.add_option("--warmup-steps", o.warmup_steps, "Steps until the full learning rate");
  command.add_option("--weight-decay", o.weight_decay, "On matrices only");
  command.add_option("--clip-norm", o.clip_norm, "The gradients' largest norm; 0: any");
  command.add_option("--sequence-length", o.sequence_length, "The most tokens of a row");
  command.add_option("--long-examples", o.long_examples, "What to do with a longer example")
      ->check(CLI::IsMember({"refuse", "truncate", "skip"}));
  command.add_flag("--no-packing", o.no_packing, "One example a row");
  command.add_flag("--no-shuffle", o.no_shuffle, "The file's order");
  command.add_option("--slots", o.slots,
                     "Shares of a step; the result depends on it, a power of 2");
  command.add_option("--micro-batch", o.micro_batch, "Rows computed at a time");
  command
      .add_option("--precision", o.precision,
                  "What a GPU multiplies in: bf16 (the default) or f32; CPUs always in f32")
      ->check(CLI::IsMember({"bf16", "f32"}));
  command.add_flag("--recompute", o.recompute, "Less memory, more time");
  command.add_option("--publish-every", o.publish_every, "Serve a new version every N steps")
      ->type_name("N");
  command.add_option("--checkpoint-every", o.checkpoint_every, "Save every N steps")
      ->type_name("N");
}

value own_options(const train_options& o) {
  value own = value::object{};
  const auto set_word = [&](const char* name, const std::string& word) {
    if (!word.empty()) own.set(name, word);
  };
  const auto set = [&](const char* name, const auto& given) {
    if (given) own.set(name, *given);
  };
  set_word("method", o.method);
  set("rank", o.rank);
  set("alpha", o.alpha);
  if (!o.targets.empty()) own.set("targets", value::array(o.targets.begin(), o.targets.end()));
  set("learning_rate", o.learning_rate);
  set("sequence_length", o.sequence_length);
  set("slots", o.slots);
  set("micro_batch", o.micro_batch);
  set_word("schedule", o.schedule);
  set("warmup_steps", o.warmup_steps);
  set("weight_decay", o.weight_decay);
  set("clip_norm", o.clip_norm);
  if (o.no_packing) own.set("packing", false);
  if (o.no_shuffle) own.set("shuffle", false);
  if (o.recompute) own.set("recompute", true);
  set("publish_every_steps", o.publish_every);
  set("checkpoint_every_steps", o.checkpoint_every);
  set_word("serve_format", o.serve_format);
  set_word("precision", o.precision);
  set_word("long_examples", o.long_examples);
  return own;
}

}  // namespace

std::shared_ptr<train_options> add_train_options(CLI::App& command) {
  auto options = std::make_shared<train_options>();
  add_names_and_files(command, *options);
  add_published(command, *options);
  add_method(command, *options);
  add_steps(command, *options);
  return options;
}

value job_request(const train_options& o, const std::string& model,
                  const std::string& training_file, const std::string& validation_file) {
  value hyperparameters = value::object{};
  if (!o.epochs.empty()) hyperparameters.set("n_epochs", auto_or_number(o.epochs));
  if (!o.batch_size.empty()) hyperparameters.set("batch_size", auto_or_number(o.batch_size));
  if (!o.learning_rate_multiplier.empty()) {
    hyperparameters.set("learning_rate_multiplier", auto_or_number(o.learning_rate_multiplier));
  }
  value body = value::object{{"model", model}, {"training_file", training_file}};
  if (!validation_file.empty()) body.set("validation_file", validation_file);
  if (!o.suffix.empty()) body.set("suffix", o.suffix);
  if (o.seed) body.set("seed", *o.seed);
  body.set("method",
           value::object{
               {"type", "supervised"},
               {"supervised", value::object{{"hyperparameters", std::move(hyperparameters)}}}});
  if (value own = own_options(o); !own.if_object()->empty()) body.set("tandem", std::move(own));
  return body;
}

}  // namespace tandem::gateway::command
