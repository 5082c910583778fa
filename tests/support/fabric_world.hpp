// A node of a test: a fabric that remembers what it was told, and lets a test wait for it.
#pragma once

#include "runtime/transport/fabric.hpp"

#include <catch2/catch.hpp>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace tandem::test {

class fabric_node : public transport::fabric_events {
 public:
  struct frame {
    transport::peer_ptr from;
    std::string body;
    std::vector<transport::buffer_ptr> attachments;
  };

  explicit fabric_node(transport::fabric_options options = {}) {
    auto opened = transport::fabric::open(std::move(options), *this);
    INFO((opened ? "" : opened.error().detail));
    REQUIRE(opened);
    fabric = *std::move(opened);
  }
  ~fabric_node() override { fabric.reset(); }

  transport::address address() const { return fabric->self().listen; }

  // Calls back from the progress thread only.
  result<transport::peer_ptr> dial(const transport::address& where) {
    std::optional<result<transport::peer_ptr>> found;
    fabric->dial(where, [&](result<transport::peer_ptr> got) {
      const std::lock_guard lock(mutex);
      found.emplace(std::move(got));
      changed.notify_all();
    });
    wait([&] { return found.has_value(); });
    return *found;
  }
  transport::peer_ptr connect(const fabric_node& to) {
    auto found = dial(to.address());
    INFO((found ? "" : found.error().detail));
    REQUIRE(found);
    return *found;
  }

  template <class Predicate>
  bool wait(Predicate holds, std::chrono::milliseconds within = std::chrono::seconds(20)) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, within, holds);
  }
  // For what tells nobody when it changes: looked at after every turn of the progress thread.
  template <class Predicate>
  bool turn_until(Predicate holds, std::chrono::milliseconds within = std::chrono::seconds(20)) {
    const auto until = std::chrono::steady_clock::now() + within;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > until) return false;
      bool turned = false;
      fabric->post([&] {
        const std::lock_guard lock(mutex);
        turned = true;
        changed.notify_all();
      });
      wait([&] { return turned; });
    }
    return true;
  }
  bool wait_for_frames(std::size_t count) {
    return wait([&] { return frames.size() >= count; });
  }

  void peer_up(const transport::peer_ptr& who) override {
    const std::lock_guard lock(mutex);
    up.push_back(who);
    changed.notify_all();
  }
  void frame_arrived(const transport::peer_ptr& from, std::span<const char> body,
                     std::vector<transport::buffer_ptr> attachments) override {
    const std::lock_guard lock(mutex);
    frames.push_back({from, {body.begin(), body.end()}, std::move(attachments)});
    changed.notify_all();
  }
  void peer_gone(const transport::peer_ptr& who, const error& why) override {
    const std::lock_guard lock(mutex);
    gone.emplace_back(who, why);
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<transport::peer_ptr> up;
  std::vector<frame> frames;
  std::vector<std::pair<transport::peer_ptr, error>> gone;
  std::unique_ptr<transport::fabric> fabric;
};

inline transport::bytes body_of(std::string_view text) { return {text.begin(), text.end()}; }

// Bytes that say where they stand, so that a shifted or lost piece shows.
inline void fill(std::span<std::byte> into, std::uint64_t seed) {
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (auto& one : into) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    one = static_cast<std::byte>(state >> 56);
  }
}
inline bool is_filled(std::span<const std::byte> from, std::uint64_t seed) {
  std::vector<std::byte> expected(from.size());
  fill(expected, seed);
  return std::equal(from.begin(), from.end(), expected.begin());
}

}  // namespace tandem::test
