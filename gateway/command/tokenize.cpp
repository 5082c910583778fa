// `tandem tokenize` and `tandem render`: the text a model sees, offline.
#include "gateway/command/commands.hpp"
#include "gateway/command/json_lines.hpp"
#include "gateway/command/model_path.hpp"
#include "gateway/command/offline_model.hpp"

#include <fmt/format.h>

#include <charconv>

namespace tandem::gateway::command {
namespace {

// The line's flag of that name; an error when it is there and no boolean.
result<bool> flag_of(const text::value& line, std::string_view name, bool otherwise) {
  const text::value* found = line.find(name);
  if (!found) return otherwise;
  if (!found->if_bool()) {
    return error{errc::bad_request, fmt::format("\"{}\" must be true or false", name), {}};
  }
  return *found->if_bool();
}

result<text::value> encode_line(const text::tokenizer& tokenizer, const text::value& line) {
  const text::value* words = line.find("text");
  if (!words || !words->if_string()) {
    return error{errc::bad_request, "give {\"text\": \"...\"} on each line", {}};
  }
  // As Hugging Face's tokenizers read it: control tokens written in the text are control tokens.
  const auto add_special = flag_of(line, "add_special_tokens", true);
  if (!add_special) return add_special.error();
  const auto parse_special = flag_of(line, "parse_special", true);
  if (!parse_special) return parse_special.error();
  text::value::array ids;
  for (const text::token_id id :
       tokenizer.encode(*words->if_string(), {*add_special, *parse_special})) {
    ids.emplace_back(std::int64_t{id});
  }
  return text::value(text::value::object{{"ids", std::move(ids)}});
}

result<text::value> decode_line(const text::tokenizer& tokenizer, const text::value& line) {
  std::vector<text::token_id> ids;
  const text::value::array* given = line.find("ids")->if_array();
  if (!given) return error{errc::bad_request, "\"ids\" must be a list of token ids", {}};
  for (const text::value& item : *given) {
    const std::int64_t* id = item.if_int();
    if (!id || *id < 0 || *id >= static_cast<std::int64_t>(tokenizer.vocabulary_size())) {
      return error{errc::bad_request,
                   fmt::format("{} is no token id: they are 0 to {}", item.to_json(),
                               tokenizer.vocabulary_size() - 1),
                   {}};
    }
    ids.push_back(static_cast<text::token_id>(*id));
  }
  const auto skip_special = flag_of(line, "skip_special_tokens", false);
  if (!skip_special) return skip_special.error();
  return text::value(text::value::object{{"text", tokenizer.decode(ids, *skip_special)}});
}

int run_tokenize(const console& io, const std::string& model) {
  const auto path = find_model(model, io.home / "models");
  if (!path) return refuse(io, path.error());
  const auto tokenizer = load_tokenizer(*path);
  if (!tokenizer) return refuse(io, tokenizer.error());
  return for_each_json_line(io, true, [&](const text::value& line) {
    const bool decode = line.find("ids") && !line.find("text");
    return decode ? decode_line(**tokenizer, line) : encode_line(**tokenizer, line);
  });
}

struct prompt_renderer {
  text::chat_template compiled;
  text::value::object defaults;  // what the model gives where the line gives nothing
  text::render_options options;

  result<text::value> operator()(const text::value& line) const {
    text::value context = line;
    for (const auto& [name, given] : defaults) {
      if (!context.find(name)) context.set(name, given);
    }
    const auto words = compiled.render(context, options);
    if (!words) return words.error();
    return text::value(text::value::object{{"text", *words}});
  }
};

// The names that transformers' apply_chat_template always defines.
text::value::object defaults_of(const std::filesystem::path& model) {
  text::value::object defaults = {
      {"tools", nullptr}, {"documents", nullptr}, {"add_generation_prompt", false}};
  const auto tokenizer = load_tokenizer(model);
  if (!tokenizer) return defaults;  // a template needs none as long as it prints no such token
  const auto give = [&](const char* name, std::optional<text::token_id> id) {
    if (id) defaults.emplace_back(name, std::string((*tokenizer)->token_spelling(*id)));
  };
  give("bos_token", (*tokenizer)->bos());
  give("eos_token", (*tokenizer)->eos());
  give("unk_token", (*tokenizer)->unknown());
  return defaults;
}

// A fixed date for prompts that show today's, by the variable that reproducible builds use.
result<text::render_options> render_options_of(const console& io) {
  const std::string_view given = environment_value(io, "SOURCE_DATE_EPOCH");
  if (given.empty()) return text::render_options{};
  std::int64_t seconds = 0;
  const auto read = std::from_chars(given.data(), given.data() + given.size(), seconds);
  if (read.ec != std::errc{} || read.ptr != given.data() + given.size()) {
    return error{errc::bad_request,
                 fmt::format("SOURCE_DATE_EPOCH: \"{}\" is no number of seconds", given),
                 {}};
  }
  return text::render_options{seconds};
}

result<prompt_renderer> load_renderer(const console& io, const std::string& wanted) {
  const bool bare = wanted.ends_with(".jinja") || wanted.ends_with(".jinja2");
  const auto path = bare ? result<std::filesystem::path>(std::filesystem::path(wanted))
                         : find_model(wanted, io.home / "models");
  if (!path) return path.error();
  const auto source = bare ? read_text_file(*path) : load_chat_template(*path);
  if (!source) return source.error();
  const auto options = render_options_of(io);
  if (!options) return options.error();
  auto compiled = text::chat_template::compile(*source);
  if (!compiled) {
    return error{
        compiled.error().code, fmt::format("{}: {}", path->string(), compiled.error().detail), {}};
  }
  return prompt_renderer{std::move(*compiled), bare ? text::value::object{} : defaults_of(*path),
                         *options};
}

int run_render(const console& io, const std::string& wanted) {
  const auto renderer = load_renderer(io, wanted);
  if (!renderer) return refuse(io, renderer.error());
  // A refusal by the template is an answer about that line, not a failure of the run.
  return for_each_json_line(io, false, *renderer);
}

}  // namespace

void add_tokenize(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "tokenize", "Token ids of texts, offline: JSON lines in, JSON lines out",
                  "echo '{\"text\": \"Hello\"}' | tandem tokenize SmolLM2-135M-Instruct.Q4_1\n\n"
                  "Lines: {\"text\": ...} gives {\"ids\": [...]}; {\"ids\": [...]} gives "
                  "{\"text\": ...}.\nOn a line: \"add_special_tokens\": false, \"parse_special\": "
                  "false, \"skip_special_tokens\": true.");
  auto model = std::make_shared<std::string>();
  command
      ->add_option("MODEL", *model,
                   "A .gguf file (vocabulary-only too), a folder, a "
                   "tokenizer.json, or a name under $TANDEM_HOME/models")
      ->required();
  add_json_option(*command, call);  // the output is JSON with or without it
  command->callback([model, &call] { call.status = run_tokenize(call.io, *model); });
}

void add_render(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "render", "The prompt that a chat template makes, offline: JSON lines",
                  "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
                  "\"add_generation_prompt\": true}' | tandem render SmolLM2-135M-Instruct.Q4_1\n\n"
                  "$SOURCE_DATE_EPOCH fixes the date that a template prints.");
  auto model = std::make_shared<std::string>();
  command->add_option("MODEL", *model, "As for tokenize, or a TEMPLATE.jinja file")->required();
  add_json_option(*command, call);  // the output is JSON with or without it
  command->callback([model, &call] { call.status = run_render(call.io, *model); });
}

}  // namespace tandem::gateway::command
