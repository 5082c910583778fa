#include "gateway/nodes/door.hpp"

#include "gateway/openai/routes.hpp"
#include "gateway/pages/routes.hpp"
#include "gateway/served_texts.hpp"
#include "runtime/log.hpp"
#include "runtime/shelf/listing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace tandem::gateway {
namespace {

std::vector<key_digest> digests(const actors::door_keys& keys) {
  std::vector<key_digest> made;
  for (const auto& hash : keys.hashes) {
    key_digest digest{};
    if (hash.size() != digest.size()) continue;
    std::copy(hash.begin(), hash.end(), digest.begin());
    made.push_back(digest);
  }
  return made;
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

std::string host_of(const std::string& address) { return address.substr(0, address.rfind(':')); }

// A key file of this node's own would promise what does not hold: the head's keys do.
result<void> check_keys(const server_settings& server, const actors::door_terms& terms) {
  const auto refuse = [](const char* setting) {
    return error{errc::forbidden,
                 fmt::format("{} is set here and the head needs no such key: its keys hold at all "
                             "doors, so set it there",
                             setting),
                 setting};
  };
  if (!server.api_keys_file.empty() && !terms.api_keys.are_needed)
    return refuse("server.api_keys_file");
  if (!server.admin_key_file.empty() && !terms.admin_keys.are_needed)
    return refuse("server.admin_key_file");
  return {};
}

// What this node has no part in: files, jobs, leases, nodes.
void add_passed_routes(router& to, const std::shared_ptr<pass_through>& head,
                       std::int64_t upload_bytes_max) {
  const auto pass = pass_through::handler(head);
  const auto add = [&](const char* method, const char* path, access needs) {
    to.add({method, path, needs, "Answered by the head.", "", "", pass});
  };
  for (const char* method : {"GET", "POST", "PUT", "PATCH", "DELETE"}) {
    add(method, "/v1/{rest...}", access::user);
    add(method, "/admin/{rest...}", access::admin);
  }
  add("GET", "/v1/files", access::user);
  to.add({"POST", "/v1/files", access::user, "Answered by the head.", "", "", pass,
          "multipart/form-data", pass_through::uploads(head), upload_bytes_max});
  add("GET", "/openapi.json", access::open);
}

}  // namespace

node_door::node_door(actor_house& house, const settings& configuration,
                     actors::borrower_actor borrower, std::function<void()> wake)
    : configuration_(configuration) {
  auto& system = house.system();
  gateway_ = house.house(system.spawn(actors::gateway, actors::serve_coordinator_actor(), board_,
                                      actors::coordinator_actor()));
  actors::door_options options;
  options.gateway = gateway_;
  options.borrower = std::move(borrower);
  options.tell = [box = told_, wake](actors::door_news news) {
    {
      const std::lock_guard lock(box->mutex);
      box->newest = std::move(news);
    }
    wake();
  };
  door_ = house.house(system.spawn(actors::door, std::move(options)));
  board_->on_report(std::move(wake));
}

node_door::~node_door() { close(); }

void node_door::joined(const std::string& head) { caf::anon_send(door_, actors::head_found{head}); }

void node_door::lost() {
  caf::anon_send(door_, actors::head_lost{});
  if (head_) head_->lose("it is gone, try again in a moment");
}

std::optional<result<std::string>> node_door::look() {
  {
    const std::lock_guard lock(told_->mutex);
    if (auto newest = std::exchange(told_->newest, std::nullopt)) take(*std::move(newest));
  }
  if (!news_ || !news_->terms.is_wanted || is_given_up_) return std::nullopt;
  const bool was_read = model_of_.has_value();
  auto done = http_ ? result<void>() : open(news_->terms);
  if (done) done = read_model(*news_);
  if (!done) {
    is_given_up_ = true;
    shut();
    return result<std::string>(done.error());
  }
  if (was_read || !model_of_) return std::nullopt;
  return result<std::string>(url_of(configuration_.server, http_->port()));
}

void node_door::take(actors::door_news news) {
  const auto& terms = news_.emplace(std::move(news)).terms;
  api_keys_->set(terms.api_keys.are_needed, digests(terms.api_keys));
  admin_keys_->set(terms.admin_keys.are_needed, digests(terms.admin_keys));
  if (!head_)
    head_ =
        pass_through::start(std::chrono::milliseconds(configuration_.server.request_timeout_ms));
  const auto host = terms.http_host.empty() ? host_of(news_->head) : terms.http_host;
  if (is_loopback(host) && terms.machine != shelf::this_machines_name())
    return head_->lose(
        fmt::format("it listens on {} of its own machine: set server.host there to "
                    "an address that nodes reach",
                    host));
  head_->follow({host, terms.http_port, terms.certificate});
}

result<void> node_door::open(const actors::door_terms& terms) {
  if (auto fine = check_keys(configuration_.server, terms); !fine) return fine;
  const auto& own = configuration_.server;
  engine_ = std::make_shared<actor_engine>(gateway_, board_, terms.inside_max,
                                           std::chrono::milliseconds(own.request_timeout_ms));
  const auto routes = std::make_shared<router>();
  add_text_routes(*routes, engine_, configuration_);
  add_probe_routes(*routes, engine_, [this] { return http_ ? http_->metrics() : std::string(); });
  add_passed_routes(*routes, head_, own.max_file_bytes);
  auto made = server::create(own, routes, doors(api_keys_, admin_keys_));
  if (!made) return made.error();
  http_ = *std::move(made);
  http_->start();
  return {};
}

// Once its files are here and a device has it in its memory; again for each head.
result<void> node_door::read_model(const actors::door_news& news) {
  const auto& terms = news.terms;
  if (!news.model || board_->is_lost || model_of_ == terms.serve_coordinator.node()) return {};
  const auto report = board_->newest();
  if (!report || report->model != terms.model_id || ready_lanes(*report) == 0) return {};
  auto source = model::model_source::open(news.model->path);
  if (!source) return source.error();
  auto texts = texts_of(**source, terms.chat_template);
  if (!texts) return texts.error();
  engine_->publish(describe(**source, terms.model_id, terms.created, *std::move(texts), *report));
  model_of_ = terms.serve_coordinator.node();
  return {};
}

void node_door::drain() {
  if (!http_) return;
  log_info("draining the door: {} requests inside", engine_->requests_inside());
  engine_->drain();
  head_->cut();
  http_->drain();
}

bool node_door::is_idle() const {
  return !http_ || (engine_->requests_inside() == 0 && http_->counts().requests_active == 0);
}

void node_door::shut() {
  if (http_) http_->stop();
  http_.reset();
}

void node_door::close() {
  board_->on_report({});
  shut();
}

}  // namespace tandem::gateway
