// Who may ask for what: key files, held as hashes, and the rules for routes of the admin plane.
#pragma once

#include "gateway/http.hpp"
#include "runtime/result.hpp"

#include <array>
#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::gateway {

using key_digest = std::array<unsigned char, 32>;  // SHA-256 of a key

// Keys that somebody may come in with.
class key_ring {
 public:
  virtual ~key_ring() = default;
  // Without need anyone may come in. Any thread, like the others.
  virtual bool is_needed() const { return true; }
  // Takes the same time whichever key matches, if any.
  bool holds(std::string_view key);
  virtual std::vector<key_digest> hashes() = 0;
};

// One key a line; empty lines and lines that begin with '#' are skipped. Read again when the file
// changed, looked at most once a second. A file that became unreadable keeps its last keys.
class key_file final : public key_ring {
 public:
  static result<std::unique_ptr<key_file>> open(const std::filesystem::path& path);
  explicit key_file(std::filesystem::path path) : path_(std::move(path)) {}  // holds none yet

  std::vector<key_digest> hashes() override;

 private:
  result<void> read();
  void read_if_changed();

  const std::filesystem::path path_;
  std::mutex mutex_;
  std::vector<key_digest> hashes_;
  std::filesystem::file_time_type changed_at_;
  std::chrono::steady_clock::time_point looked_at_;
};

// Keys that another process told: of a door, its head.
class told_keys final : public key_ring {
 public:
  bool is_needed() const override;
  std::vector<key_digest> hashes() override;
  void set(bool are_needed, std::vector<key_digest> hashes);

 private:
  mutable std::mutex mutex_;
  bool are_needed_ = false;
  std::vector<key_digest> hashes_;
};

class doors {
 public:
  static result<doors> open(const server_settings& settings);
  doors(std::shared_ptr<key_ring> api_keys, std::shared_ptr<key_ring> admin_keys)
      : api_keys_(std::move(api_keys)), admin_keys_(std::move(admin_keys)) {}

  bool api_key_needed() const { return api_keys_ && api_keys_->is_needed(); }
  bool admin_key_needed() const { return admin_keys_ && admin_keys_->is_needed(); }

  // The refusal, or nothing when the request may pass.
  std::optional<http_response> check(access needs, const http_request& request,
                                     bool from_loopback) const;

 private:
  std::shared_ptr<key_ring> api_keys_;    // null: anyone may
  std::shared_ptr<key_ring> admin_keys_;  // null: whoever sits at this machine may
};

}  // namespace tandem::gateway
