#include "runtime/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <memory>
#include <mutex>

namespace tandem {

namespace log_detail {
std::atomic<log_level> least{log_level::info};
}

namespace {

constexpr std::array<std::string_view, 6> names{"trace",   "debug", "info",
                                                "warning", "error", "off"};

// Which sink lines go to. Replaced as a whole, so that a line under way ends in the old one.
struct output {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> logger;
};
output& current() {
  static output o;
  return o;
}

std::shared_ptr<spdlog::logger> logger_to(spdlog::sink_ptr sink) {
  auto logger = std::make_shared<spdlog::logger>("tandem", std::move(sink));
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %v", spdlog::pattern_time_type::utc);
  logger->set_level(spdlog::level::trace);
  logger->flush_on(spdlog::level::warn);
  return logger;
}

std::shared_ptr<spdlog::logger> logger() {
  output& o = current();
  const std::lock_guard lock(o.mutex);
  if (!o.logger) o.logger = logger_to(std::make_shared<spdlog::sinks::stderr_sink_mt>());
  return o.logger;
}

spdlog::level::level_enum spdlog_level(log_level l) {
  return l >= log_level::warning ? spdlog::level::warn : spdlog::level::info;
}

// On one line, whatever it holds.
std::string flat(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
  }
  return out;
}

}  // namespace

result<log_level> parse_log_level(std::string_view name) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return static_cast<log_level>(i);
  }
  if (name == "warn") return log_level::warning;
  if (name == "critical") return log_level::error;
  return tandem::error{
      errc::bad_request,
      fmt::format("no log level \"{}\": take trace, debug, info, warning, error or off",
                  flat(name)),
      "log.level"};
}

result<void> open_log(log_level least, const std::string& file) {
  spdlog::sink_ptr sink;
  try {
    if (file.empty()) {
      sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    } else {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
    }
  } catch (const spdlog::spdlog_ex& e) {
    return tandem::error{errc::io, fmt::format("the log cannot be opened: {}", e.what()),
                         "log.file"};
  }
  auto fresh = logger_to(std::move(sink));
  output& o = current();
  const std::lock_guard lock(o.mutex);
  if (o.logger) o.logger->flush();
  o.logger = std::move(fresh);
  log_detail::least.store(least, std::memory_order_relaxed);
  return {};
}

void write_log(log_level l, std::string_view text) {
  if (l >= log_level::off) return;
  logger()->log(spdlog_level(l), "{:<7} {}", names[static_cast<std::size_t>(l)], flat(text));
}

}  // namespace tandem
