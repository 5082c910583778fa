// `tandem chat`: a person, or a pipe, talks to a served model.
#include "gateway/command/chat_session.hpp"
#include "gateway/command/commands.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/line_editor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <istream>
#include <iterator>
#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

constexpr std::string_view commands_help =
    "/reset          forget the conversation\n"
    "/system WORDS   begin anew with this system prompt\n"
    "/exit           leave (also Ctrl-D); Ctrl-C stops an answer\n";

struct chat_call {
  chat_options options;
  std::string message;
  bool has_message = false;
};

// The model to ask for: as given, or the one that is served.
result<std::string> served_model(http_client& client, const std::string& wanted) {
  const auto list = client.get_json("/v1/models");
  if (!list) return list.error();
  const value* data = list->find("data");
  std::vector<std::string> ids;
  if (data && data->if_array()) {
    for (const value& model : *data->if_array()) {
      const value* id = model.find("id");
      if (id && id->if_string()) ids.push_back(*id->if_string());
    }
  }
  if (ids.empty()) {
    return error{
        errc::unavailable, fmt::format("{} serves no model yet", client.address().text), {}};
  }
  return wanted.empty() ? ids.front() : wanted;
}

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

std::string speed_line(const chat_answer& answer) {
  const double writing = seconds(answer.whole_after - answer.first_after);
  const auto more = static_cast<double>(answer.completion_tokens - 1);
  std::string line = fmt::format("[{} tokens, the first after {:.0f} ms", answer.completion_tokens,
                                 1e3 * seconds(answer.first_after));
  if (more > 0 && writing > 0) line += fmt::format(", then {:.1f} tokens/s", more / writing);
  return line + "]";
}

value as_json(const chat_answer& answer) {
  return value::object{
      {"text", answer.text},
      {"finish_reason", answer.finish_reason.empty() ? value() : value(answer.finish_reason)},
      {"prompt_tokens", answer.prompt_tokens},
      {"completion_tokens", answer.completion_tokens},
      {"first_after_ms", 1e3 * seconds(answer.first_after)},
      {"whole_after_ms", 1e3 * seconds(answer.whole_after)}};
}

// One question and its answer on the screen.
int say(const invocation& call, chat_session& session, const std::string& question,
        interrupt_watch& ctrl_c) {
  const console& io = call.io;
  ctrl_c.forget();
  const auto show = [&](std::string_view piece) {
    if (!call.json) io.out << piece << std::flush;
  };
  const auto answer = session.ask(question, show, [&] { return ctrl_c.seen() || !io.out; });
  if (!answer) {
    if (io.out_is_terminal) io.out << std::endl;
    return refuse(io, answer.error());
  }
  if (call.json) {
    io.out << as_json(*answer).to_json() << std::endl;
    return done;
  }
  io.out << std::endl;
  if (io.out_is_terminal) {
    io.out << (ctrl_c.seen() ? "[stopped]" : speed_line(*answer)) << "\n" << std::endl;
  }
  return done;
}

// True when the line was a command of the chat's own.
bool run_chat_command(const console& io, chat_session& session, const std::string& line) {
  if (line == "/reset") {
    session.reset();
    if (io.out_is_terminal) io.out << "[forgotten]\n" << std::endl;
    return true;
  }
  if (line == "/system" || line.starts_with("/system ")) {
    session.set_system(line.substr(std::min<std::size_t>(line.size(), 8)));
    if (io.out_is_terminal) io.out << "[begun anew]\n" << std::endl;
    return true;
  }
  if (line == "/help" || line == "/?") {
    io.out << commands_help << std::endl;
    return true;
  }
  return false;
}

int converse(const invocation& call, chat_session& session, interrupt_watch& ctrl_c) {
  const console& io = call.io;
  const bool person = io.in_is_terminal && io.out_is_terminal;
  if (person) {
    io.out << session.options().model << " at " << call.address << "; /help lists the commands\n"
           << std::endl;
  }
  for (;;) {
    ctrl_c.forget();
    const auto line = read_line(io, "> ");
    if (!line && person && ctrl_c.seen()) {
      io.in.clear();
      io.out << "\n(/exit or Ctrl-D leaves)" << std::endl;
      continue;
    }
    if (!line || *line == "/exit" || *line == "/quit" || *line == "/bye") break;
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    if (run_chat_command(io, session, *line)) continue;
    const int status = say(call, session, *line, ctrl_c);
    if (status != done && !person) return status;
  }
  if (person) io.out << std::endl;
  return done;
}

int run_chat(const invocation& call, chat_call chat) {
  const console& io = call.io;
  auto client = connect(call);
  if (!client) return refuse_usage(io, client.error().detail);
  auto model = served_model(*client, chat.options.model);
  if (!model) return refuse(io, model.error());
  chat.options.model = std::move(*model);
  chat_session session(std::move(*client), std::move(chat.options));
  interrupt_watch ctrl_c;
  if (!chat.has_message) return converse(call, session, ctrl_c);
  if (chat.message == "-") {
    chat.message.assign(std::istreambuf_iterator<char>(io.in), {});
  }
  return say(call, session, chat.message, ctrl_c);
}

}  // namespace

void add_chat(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "chat", "Talk to a model, streamed, with history",
                  "tandem chat -m \"Tell me the capital of France.\" --temperature 0\n\n"
                  "Without -m: a conversation; piped, each line is a turn. In it:\n" +
                      std::string(commands_help));
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto chat = std::make_shared<chat_call>();
  chat_options& options = chat->options;
  command->add_option("MODEL", options.model, "A served model; the first one when not given");
  command
      ->add_option("-m,--message", chat->message,
                   "Ask this, print the answer and leave; - reads it from standard input")
      ->type_name("TEXT")
      ->each([chat](const std::string&) { chat->has_message = true; });
  command->add_option("-s,--system", options.system, "The system prompt")->type_name("TEXT");
  command->add_option("--temperature", options.temperature, "0: the likeliest word, always");
  command->add_option("--top-p", options.top_p, "Draw from this share of the likeliest words");
  command->add_option("--max-tokens", options.max_tokens, "The longest answer");
  command->add_option("--seed", options.seed, "The same seed gives the same answer");
  command->callback([chat, &call] { call.status = run_chat(call, *chat); });
}

}  // namespace tandem::gateway::command
