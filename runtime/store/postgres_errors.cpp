#include "runtime/store/postgres_errors.hpp"

#include <fmt/format.h>

namespace tandem::store {
namespace {

constexpr const char* setting = "store.url";

bool has(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

std::string first_line(std::string_view text) {
  std::string line(text.substr(0, text.find('\n')));
  while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.pop_back();
  return line;
}

error bad_postgres_url() {
  return {errc::bad_request,
          "store.url: no address that PostgreSQL's library reads: give "
          "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with % escapes for special characters",
          setting};
}

error read_only_server(std::string_view name) {
  return {errc::unsupported,
          fmt::format("{} takes no writes (a standby server, or read-only): give the primary's "
                      "address, or several hosts and ?target_session_attrs=read-write",
                      name),
          setting};
}

error no_connection(std::string_view name, std::string_view database, std::string_view user,
                    std::string_view text) {
  const auto say = [&](errc code, std::string what) {
    return error{code, fmt::format("{}: {}", name, what), setting};
  };
  if (has(text, "authentication failed") || has(text, "no password supplied"))
    return say(errc::unauthorized,
               fmt::format("the password of \"{}\" is missing or wrong: correct it in store.url, "
                           "PGPASSWORD or ~/.pgpass",
                           user));
  if (has(text, "no pg_hba.conf entry"))
    return say(errc::forbidden, "the server lets nobody in from here (its pg_hba.conf)");
  if (has(text, "role \"") && has(text, "does not exist"))
    return say(errc::unauthorized, fmt::format("the server knows no user \"{}\"", user));
  if (has(text, "database \"") && has(text, "does not exist"))
    return say(errc::not_found,
               fmt::format("there is no database \"{0}\": make it (createdb {0})", database));
  if (has(text, "too many clients") || has(text, "remaining connection slots"))
    return say(errc::overloaded, "the server has no connection left: raise its max_connections");
  if (has(text, "session is read-only") || has(text, "session is not read-write") ||
      has(text, "server is in hot standby mode"))
    return read_only_server(name);
  if (has(text, "starting up") || has(text, "shutting down") || has(text, "recovery"))
    return say(errc::unavailable, "the server is starting or stopping");
  if (has(text, "Connection refused") || has(text, "No such file"))
    return say(errc::unavailable,
               "no PostgreSQL server answers there: start it, or correct store.url");
  if (has(text, "timeout expired"))
    return say(errc::unavailable, "no answer in time: is the address right, and the way open?");
  return say(errc::unavailable, "no connection: " + first_line(text));
}

bool ends_session(std::string_view sqlstate) {
  return sqlstate.starts_with("08") || sqlstate.starts_with("57P") || sqlstate == "25P03";
}

error statement_failed(std::string_view name, std::string_view sqlstate, std::string_view text,
                       int timeout_ms) {
  const auto say = [&](errc code, std::string what) {
    return error{code, fmt::format("{}: {}", name, what), setting};
  };
  if (sqlstate == "57014")
    return say(errc::timed_out, fmt::format("a statement took longer than {} ms", timeout_ms));
  if (sqlstate == "55P03" || sqlstate.starts_with("40"))
    return say(errc::unavailable,
               fmt::format("another session held its lock for {} ms", timeout_ms));
  if (sqlstate == "25006") return read_only_server(name);
  if (sqlstate == "53100")
    return say(errc::io,
               "the server's disk is full: nothing of this change was kept; make room and try "
               "again");
  if (sqlstate == "53200") return say(errc::no_memory, "the server has no memory left");
  if (sqlstate.starts_with("53")) return say(errc::overloaded, first_line(text));
  if (sqlstate == "42501")
    return say(errc::forbidden,
               fmt::format("{}: give the user its rights (GRANT CREATE ON SCHEMA public TO …), or "
                           "a database of its own",
                           first_line(text)));
  if (sqlstate.starts_with("58")) return say(errc::io, first_line(text));
  if (sqlstate.starts_with("XX"))
    return say(errc::bad_file, fmt::format("{} (SQLSTATE {})", first_line(text), sqlstate));
  return say(errc::internal, fmt::format("{} (SQLSTATE {})", first_line(text), sqlstate));
}

}  // namespace tandem::store
