#include "runtime/model/hub.hpp"

#include "runtime/model/hub_files.hpp"
#include "runtime/model/hub_http.hpp"
#include "runtime/model/hub_part.hpp"

#include "simdjson.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

namespace tandem::model {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t listing_bytes_max = std::size_t{64} << 20;
constexpr std::uint64_t recheck_bytes_max = std::uint64_t{64} << 20;

class puller {
 public:
  puller(hub_reference reference, const hub_options& options)
      : reference_(std::move(reference)), options_(options) {
    while (endpoint().ends_with('/')) endpoint_.pop_back();
  }

  result<fs::path> run() {
    auto listed = listing();
    if (!listed) return listed.error();
    auto chosen = choose_files(*listed, reference_);
    if (!chosen) return chosen.error();
    progress_.files = chosen->size();
    for (const hub_file& file : *chosen) progress_.bytes_total += file.bytes.value_or(0);
    if (auto room = check_room(*chosen); !room) return room.error();
    for (const hub_file& file : *chosen) {
      if (auto here = fetch(file); !here) return here.error();
      ++progress_.files_done;
      report();
    }
    const std::string& last = chosen->back().name;
    return last.ends_with(".gguf") || chosen->size() == 1 ? folder() / chosen->front().name
                                                          : folder();
  }

 private:
  const std::string& endpoint() const { return endpoint_; }
  fs::path folder() const { return options_.models / reference_.repository; }
  std::string repository_url() const {
    return endpoint() + "/" + url_escaped(reference_.repository, true);
  }

  // --- talking to the hub

  http_request request(std::string url) const {
    http_request r;
    r.url = std::move(url);
    r.token = options_.token;
    r.cancelled = options_.cancelled;
    return r;
  }

  // Runs `attempt` until it succeeds, fails for good, or failed too often without bringing a byte.
  template <class Attempt>
  result<http_head> with_retries(Attempt attempt) {
    int failures = 0;
    for (;;) {
      std::uint64_t before = progress_.bytes_done;
      result<http_head> head = attempt();
      bool worth_another =
          head ? head->status == 429 || head->status >= 500 : head.error().code == errc::io;
      if (!worth_another) return head;
      failures = progress_.bytes_done > before ? 1 : failures + 1;
      if (failures >= options_.attempts) return head;
      pause(failures, head ? head->retry_after_s : std::nullopt);
    }
  }

  void pause(int failures, std::optional<std::int64_t> asked_s) const {
    constexpr std::int64_t pause_ms_max = 60'000;
    std::int64_t own_ms = std::int64_t{500} << std::min(failures, 6);
    std::chrono::milliseconds delay(
        std::min(asked_s ? std::max(*asked_s * 1000, own_ms) : own_ms, pause_ms_max));
    if (options_.wait)
      options_.wait(delay);
    else
      std::this_thread::sleep_for(delay);
  }

  result<http_head> get_text(const std::string& url, std::string& body) {
    auto r = request(url);
    r.body = [&body](const http_head&, std::string_view bytes) -> result<void> {
      if (body.size() + bytes.size() > listing_bytes_max)
        return error{errc::too_large, "the hub's answer is larger than 64 MiB", {}};
      body += bytes;
      return {};
    };
    return with_retries([&] {
      body.clear();
      return http_get(r);
    });
  }

  result<std::vector<hub_file>> listing() {
    std::string body;
    auto head = get_text(endpoint() + "/api/models/" + url_escaped(reference_.repository, true) +
                             "/revision/" + url_escaped(options_.revision, false) + "?blobs=true",
                         body);
    if (!head) return head.error();
    if (head->status == 404)
      return error{errc::not_found,
                   endpoint() + " has no repository " + reference_.repository +
                       " with a revision " + options_.revision + similar_repositories(),
                   {}};
    if (head->status != 200) return refused(head->status, "its list of files");
    return parse_listing(body);
  }

  // "; similar: a, b", as the hub's own search finds them; empty when it does not answer.
  std::string similar_repositories() {
    std::string body;
    std::string name = reference_.repository.substr(reference_.repository.rfind('/') + 1);
    auto r = request(endpoint() + "/api/models?limit=5&search=" + url_escaped(name, false));
    r.body = [&body](const http_head&, std::string_view bytes) -> result<void> {
      if (body.size() + bytes.size() > listing_bytes_max) return error{errc::too_large, {}, {}};
      body += bytes;
      return {};
    };
    auto head = http_get(r);
    simdjson::dom::parser parser;
    simdjson::dom::array found;
    if (!head || head->status != 200 || parser.parse(simdjson::padded_string(body)).get(found))
      return {};
    std::string names;
    for (simdjson::dom::element one : found) {
      std::string_view id;
      if (!one["id"].get(id)) names += (names.empty() ? "; similar: " : ", ") + std::string(id);
    }
    return names;
  }

  error refused(long status, const std::string& what) const {
    const std::string& repository = reference_.repository;
    if (status == 401 || status == 403)
      return {status == 401 ? errc::unauthorized : errc::forbidden,
              repository + " is gated, private, or not there (status " + std::to_string(status) +
                  " for " + what + "): accept its terms at " + repository_url() +
                  (options_.token.empty() ? " and set HF_TOKEN" : " with the account of HF_TOKEN"),
              {}};
    if (status == 404)
      return {errc::not_found, repository + " lists " + what + " but does not have it", {}};
    return {status == 429 ? errc::overloaded : errc::io,
            endpoint() + " answers status " + std::to_string(status) + " for " + what + " of " +
                repository,
            {}};
  }

  // --- one file

  result<void> fetch(const hub_file& file) {
    progress_.file = file.name;
    fs::path path = folder() / file.name;
    std::uint64_t before = progress_.bytes_done;
    if (already_here(path, file)) {
      progress_.bytes_done = before + file.bytes.value_or(0);
      return {};
    }
    auto part = hub_part::open(path);
    if (!part) return part.error();
    bool continued = part->bytes() > 0;
    auto here = fetch_into(*part, file, before);
    if (here || here.error().code != errc::bad_file) return here;
    part->discard();
    // Bytes from an earlier pull may be of another version of the file: once more, from the start.
    if (!continued) return here;
    auto fresh = hub_part::open(path);
    if (!fresh) return fresh.error();
    here = fetch_into(*fresh, file, before);
    if (!here && here.error().code == errc::bad_file) fresh->discard();
    return here;
  }

  // What lies under its own name was checked when it got there; small files are checked again.
  static bool already_here(const fs::path& path, const hub_file& file) {
    std::error_code code;
    auto bytes = fs::file_size(path, code);
    if (code || (file.bytes && *file.bytes != bytes)) return false;
    if (file.bytes && bytes > recheck_bytes_max) return true;
    bool can_tell = !file.sha256.empty() || !file.git_blob.empty();
    return can_tell && check_file(path, file).has_value();
  }

  result<void> fetch_into(hub_part& part, const hub_file& file, std::uint64_t before) {
    if (file.bytes && part.bytes() > *file.bytes)
      if (auto empty = part.restart({}); !empty) return empty;
    if (!file.bytes || part.bytes() < *file.bytes || *file.bytes == 0) {
      auto head = with_retries([&] { return continue_part(part, file, before); });
      if (!head) return head.error();
      if (head->status != 200 && head->status != 206) return refused(head->status, file.name);
    }
    progress_.bytes_done = before + part.bytes();
    return part.finish(file);
  }

  result<http_head> continue_part(hub_part& part, const hub_file& file, std::uint64_t before) {
    auto r = request(repository_url() + "/resolve/" + url_escaped(options_.revision, false) + "/" +
                     url_escaped(file.name, true));
    std::uint64_t from = part.bytes();
    if (from > 0) {
      r.headers.push_back("Range: bytes=" + std::to_string(from) + "-");
      if (part.etag().starts_with('"')) r.headers.push_back("If-Range: " + part.etag());
    }
    bool begun = false;
    r.body = [&](const http_head& head, std::string_view bytes) -> result<void> {
      if (head.status != 200 && head.status != 206) return {};  // an error's text
      if (!begun) {
        begun = true;
        if (auto ready = begin_body(part, head); !ready) return ready;
      }
      if (file.bytes && part.bytes() + bytes.size() > *file.bytes)
        return error{errc::bad_file,
                     file.name + " is longer than the " + std::to_string(*file.bytes) +
                         " bytes the hub names",
                     {}};
      if (auto written = part.append(bytes); !written) return no_retry(written.error());
      progress_.bytes_done = before + part.bytes();
      report();
      return {};
    };
    auto head = http_get(r);
    if (!head) return head;
    if (head->status == 416) {  // nothing lies behind what we have, or it is of another file
      if (auto empty = part.restart({}); !empty) return empty.error();
      return error{errc::io, file.name + ": the hub has nothing to continue with", {}};
    }
    bool good = head->status == 200 || head->status == 206;
    if (good && !begun && from == 0)
      if (auto ready = part.restart(head->etag); !ready) return ready.error();
    if (good && file.bytes && part.bytes() < *file.bytes)
      return error{errc::io,
                   file.name + ": the connection ended after " + std::to_string(part.bytes()) +
                       " of " + std::to_string(*file.bytes) + " bytes",
                   {}};
    return head;
  }

  // The first bytes are about to come: go on at the end, or from the start.
  static result<void> begin_body(hub_part& part, const http_head& head) {
    if (head.status == 206 && head.range_start && *head.range_start == part.bytes()) return {};
    if (head.status == 206)
      return error{errc::io, "the hub answered with another range than was asked for", {}};
    return part.restart(head.etag);
  }

  // A disk that says no will say it again: errc::io is what another attempt may mend.
  static error no_retry(error why) {
    why.code = errc::no_memory;
    return why;
  }

  result<void> check_room(const std::vector<hub_file>& files) const {
    std::error_code code;
    fs::create_directories(folder(), code);
    if (code) return error{errc::io, folder().string() + ": " + code.message(), {}};
    std::uint64_t wanted = 0;
    for (const hub_file& file : files) {
      std::error_code none;
      fs::path path = folder() / file.name;
      std::uint64_t whole = fs::file_size(path, none);
      if (!none && file.bytes && whole == *file.bytes) continue;
      std::uint64_t part = fs::file_size(path.string() + ".part", none);
      wanted += file.bytes.value_or(0) - std::min(none ? 0 : part, file.bytes.value_or(0));
    }
    auto space = fs::space(folder(), code);
    if (code || wanted <= space.available) return {};
    return error{errc::no_memory,
                 reference_.repository + " needs " + std::to_string(wanted) + " more bytes and " +
                     folder().string() + " has room for " + std::to_string(space.available) +
                     ": make room, or set TANDEM_HOME to a larger disk",
                 {}};
  }

  void report() const {
    if (options_.progress) options_.progress(progress_);
  }

  hub_reference reference_;
  const hub_options& options_;
  std::string endpoint_ = options_.endpoint;
  hub_progress progress_;
};

}  // namespace

hub_options hub_options::from_environment(fs::path models) {
  hub_options options;
  options.models = std::move(models);
  if (const char* endpoint = std::getenv("HF_ENDPOINT"); endpoint != nullptr && *endpoint != '\0')
    options.endpoint = endpoint;
  if (const char* token = std::getenv("HF_TOKEN"); token != nullptr) options.token = token;
  return options;
}

result<fs::path> pull(std::string_view what, const hub_options& options) {
  auto reference = parse_reference(what);
  if (!reference) return reference.error();
  if (!options.endpoint.starts_with("http://") && !options.endpoint.starts_with("https://"))
    return error{errc::bad_request,
                 "HF_ENDPOINT '" + options.endpoint + "' must begin with http:// or https://",
                 {}};
  if (options.token.find_first_of("\r\n") != std::string::npos)
    return error{errc::bad_request, "HF_TOKEN must be one line", {}};
  return puller(*reference, options).run();
}

}  // namespace tandem::model
