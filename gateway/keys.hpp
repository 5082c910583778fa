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
#include <vector>

namespace tandem::gateway {

// One key a line; empty lines and lines that begin with '#' are skipped. Read again when the file
// changed, looked at most once a second. A file that became unreadable keeps its last keys.
class key_file {
 public:
  static result<std::unique_ptr<key_file>> open(const std::filesystem::path& path);
  explicit key_file(std::filesystem::path path) : path_(std::move(path)) {}  // holds none yet

  // Any thread. Takes the same time whichever key matches, if any.
  bool holds(std::string_view key);

 private:
  using digest = std::array<unsigned char, 32>;

  result<void> read();
  void read_if_changed();
  static digest hash_of(std::string_view key);

  const std::filesystem::path path_;
  std::mutex mutex_;
  std::vector<digest> hashes_;
  std::filesystem::file_time_type changed_at_;
  std::chrono::steady_clock::time_point looked_at_;
};

class doors {
 public:
  static result<doors> open(const server_settings& settings);

  bool admin_key_needed() const { return admin_keys_ != nullptr; }

  // The refusal, or nothing when the request may pass.
  std::optional<http_response> check(access needs, const http_request& request,
                                     bool from_loopback) const;

 private:
  std::unique_ptr<key_file> api_keys_;    // null: anyone may
  std::unique_ptr<key_file> admin_keys_;  // null: whoever sits at this machine may
};

}  // namespace tandem::gateway
