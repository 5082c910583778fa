#include "gateway/keys.hpp"

#include "gateway/refusal.hpp"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <spdlog/spdlog.h>

#include <fstream>

namespace tandem::gateway {

namespace {

constexpr std::chrono::seconds look_every{1};

std::string_view presented_key(const http_request& request) {
  const std::string_view authorization = request.header("authorization");
  constexpr std::string_view scheme = "bearer ";
  if (authorization.size() > scheme.size()) {
    bool bearer = true;
    for (std::size_t index = 0; index < scheme.size(); ++index)
      bearer = bearer && (authorization[index] | 0x20) == scheme[index];
    if (bearer) {
      const std::size_t first = authorization.find_first_not_of(' ', scheme.size());
      if (first != std::string_view::npos) return authorization.substr(first);
    }
  }
  return request.header("x-api-key");
}

key_digest hash_of(std::string_view key) {
  key_digest hash{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

// "localhost:8000" to "localhost", "[::1]:8000" to "::1".
std::string_view host_without_port(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

// A page of another site, opened on this machine, can send requests here, and can point a name of
// its own at 127.0.0.1. Without a key, only Host and Origin tell it from us.
bool sent_by_another_site(const http_request& request) {
  const std::string_view host = request.header("host");
  const std::string_view name = host_without_port(host);
  if (!host.empty() && name != "localhost" && name != "::1" && !name.starts_with("127."))
    return true;
  const std::string_view origin = request.header("origin");
  if (origin.empty()) return false;
  const std::size_t scheme_end = origin.find("://");
  return scheme_end == std::string_view::npos || origin.substr(scheme_end + 3) != host;
}

http_response key_refusal(std::string_view key) {
  if (key.empty())
    return refusal(401,
                   "You didn't provide an API key. Send it in an Authorization header as "
                   "'Bearer YOUR_KEY', or as x-api-key.",
                   "invalid_api_key");
  return refusal(401, "Incorrect API key provided.", "invalid_api_key");
}

}  // namespace

result<std::unique_ptr<key_file>> key_file::open(const std::filesystem::path& path) {
  auto file = std::make_unique<key_file>(path);
  if (auto done = file->read(); !done) return done.error();
  if (file->hashes_.empty())
    return error{errc::bad_file, path.string() + " holds no key: put one key on each line", {}};
  return file;
}

bool key_ring::holds(std::string_view key) {
  const key_digest wanted = hash_of(key);
  bool found = false;
  for (const key_digest& hash : hashes())
    found |= CRYPTO_memcmp(hash.data(), wanted.data(), hash.size()) == 0;
  return found && !key.empty();
}

std::vector<key_digest> key_file::hashes() {
  const std::lock_guard lock(mutex_);
  read_if_changed();
  return hashes_;
}

result<void> key_file::read() {
  std::error_code ec;
  const auto changed_at = std::filesystem::last_write_time(path_, ec);
  std::ifstream file(path_);
  if (ec || !file)
    return error{errc::io,
                 "the key file " + path_.string() + " cannot be read: check its path and rights",
                 {}};
  std::vector<key_digest> hashes;
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos || line[first] == '#') continue;
    const std::size_t last = line.find_last_not_of(" \t\r");
    hashes.push_back(hash_of(std::string_view(line).substr(first, last - first + 1)));
  }
  hashes_ = std::move(hashes);
  changed_at_ = changed_at;
  return {};
}

void key_file::read_if_changed() {
  const auto now = std::chrono::steady_clock::now();
  if (now - looked_at_ < look_every) return;
  looked_at_ = now;
  std::error_code ec;
  const auto changed_at = std::filesystem::last_write_time(path_, ec);
  if (!ec && changed_at == changed_at_) return;
  if (auto done = read(); !done) {
    spdlog::warn("{}; the keys read before stay valid", done.error().detail);
  } else {
    spdlog::info("{} changed: {} keys", path_.string(), hashes_.size());
  }
}

bool told_keys::is_needed() const {
  const std::lock_guard lock(mutex_);
  return are_needed_;
}

std::vector<key_digest> told_keys::hashes() {
  const std::lock_guard lock(mutex_);
  return hashes_;
}

void told_keys::set(bool are_needed, std::vector<key_digest> hashes) {
  const std::lock_guard lock(mutex_);
  are_needed_ = are_needed;
  hashes_ = std::move(hashes);
}

result<doors> doors::open(const server_settings& settings) {
  doors opened(nullptr, nullptr);
  for (const auto& [path, keys, setting] :
       {std::tuple(&settings.api_keys_file, &opened.api_keys_, "server.api_keys_file"),
        std::tuple(&settings.admin_key_file, &opened.admin_keys_, "server.admin_key_file")}) {
    if (path->empty()) continue;
    auto file = key_file::open(*path);
    if (!file) return error{file.error().code, file.error().detail, setting};
    *keys = std::move(*file);
  }
  return opened;
}

std::optional<http_response> doors::check(access needs, const http_request& request,
                                          bool from_loopback) const {
  const bool user_needs = api_key_needed();
  const bool admin_needs = admin_key_needed();
  if (needs == access::open || (needs == access::user && !user_needs)) return std::nullopt;
  const std::string_view key = presented_key(request);
  if (needs == access::user) {
    if (api_keys_->holds(key) || (admin_needs && admin_keys_->holds(key))) return std::nullopt;
    return key_refusal(key);
  }
  if (admin_needs) {
    if (admin_keys_->holds(key)) return std::nullopt;
    if (user_needs && api_keys_->holds(key))
      return refusal(403, "This key may not use the admin plane: send the admin key.",
                     "admin_key_required");
    return key_refusal(key);
  }
  if (!from_loopback)
    return refusal(403,
                   "Without server.admin_key_file the admin plane answers only to this machine.",
                   "admin_key_required");
  if (sent_by_another_site(request))
    return refusal(403,
                   "Without server.admin_key_file the admin plane answers only to its own pages "
                   "at a loopback address.",
                   "admin_key_required");
  return std::nullopt;
}

}  // namespace tandem::gateway
