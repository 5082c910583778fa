// One run of the command line, shared by the commands: the options that several of them have, and
// the exit status.
#pragma once

#include "gateway/command/console.hpp"
#include "gateway/command/http_client.hpp"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <string>
#include <string_view>

namespace tandem::gateway::command {

constexpr std::string_view default_address = "http://127.0.0.1:8000";

struct invocation {
  console& io;
  std::string address;
  std::string api_key;
  bool json = false;
  int status = done;
};

// A subcommand with its description and the example that its --help ends with.
CLI::App* add_command(CLI::App& app, std::string name, std::string description,
                      std::string example);

// A command of a later version: known by name, refused with a line that says so.
void add_command_not_built(CLI::App& app, invocation& call, const std::string& name,
                           std::string description);

// --address and --api-key, with $TANDEM_ADDRESS and $TANDEM_API_KEY as defaults.
void add_server_options(CLI::App& app, invocation& call);
void add_json_option(CLI::App& app, invocation& call);

// A client for --address.
result<http_client> connect(const invocation& call);

}  // namespace tandem::gateway::command
