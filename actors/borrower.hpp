// The borrower: in a process whose devices a head elsewhere lends, turns the paths of the head's
// orders into paths here. A path that has the same bytes here is used as it is; else they are
// fetched from the library of whoever gave the order into this machine's cache, once for all
// processes. A thread of its own writes and hashes; devices never wait for it.
#pragma once

#include "actors/library.hpp"
#include "runtime/shelf/cache.hpp"
#include "runtime/shelf/file_hasher.hpp"

#include <caf/all.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace tandem::actors {

// device to borrower: where are these files here? Tried again for as long as `patience` says, where
// that can help (a full disk, a busy library).
struct borrow {
  caf::node_id from;  // whose order names the path
  std::string path;   // there
  shelf::purpose what = shelf::purpose::model;
  std::chrono::milliseconds patience{0};
};
struct borrowed {
  std::string path;  // here
  // While this is held nobody throws them away; null: they are not ours to throw away.
  std::shared_ptr<const shelf::lock_file> hold;
};
// borrower to itself.
struct errand_goes_on {
  std::uint64_t errand = 0;
  std::uint64_t attempt = 0;
};
// whoever puts a copy on the disk to itself: the next stretch.
struct sync_on {};

using borrower_actor =
    caf::typed_actor<caf::replies_to<borrow>::with<borrowed>, caf::reacts_to<errand_goes_on>>;

// Whether trying again later can help.
bool is_worth_another_try(const error& why);

struct borrower_options {
  std::filesystem::path folder;  // of the cache
  std::uint64_t bytes_max = 0;   // in it
  std::chrono::milliseconds answer_within{10'000};
  std::chrono::milliseconds hashes_within{600'000};  // of what the head has to read first
  std::chrono::milliseconds piece_within{60'000};
  std::chrono::milliseconds other_process_within{1'800'000};  // that fetches the same
  std::chrono::milliseconds first_pause{100};
  std::chrono::milliseconds pause_max{5000};
};

struct borrower_state {
  // One path on its way here. What belongs to an attempt that is over counts for nothing.
  struct errand {
    enum class phase : std::uint8_t { wait, ask, compare, settle, look, fetch };
    borrow order;
    std::vector<caf::typed_response_promise<borrowed>> waiting;
    caf::actor_clock::time_point began{};
    caf::actor_clock::time_point until{};
    std::uint64_t attempt = 0;
    unsigned failures = 0;
    std::chrono::milliseconds pause{0};
    phase now = phase::wait;  // for others to end
    library_actor library;
    shelf::listing there;
    std::size_t comparing = 0;  // a file of what lies here
    std::optional<shelf::file_hasher> hasher;
    std::optional<shelf::incoming> coming;
    std::size_t on_the_way = 0;
    std::uint64_t fetched_bytes = 0;
    bool fetched = false;  // all of it
  };
  using key = std::tuple<caf::node_id, std::string, shelf::purpose>;
  borrower_options options;
  std::map<key, std::uint64_t> by_path;
  std::map<std::uint64_t, errand> errands;  // in order of their orders
  std::uint64_t errands_taken = 0;
  std::size_t errands_running = 0;

  static inline const char* name = "borrower";
};

borrower_actor::behavior_type borrower(borrower_actor::stateful_pointer<borrower_state> self,
                                       borrower_options options);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, errand_goes_on& x) {
  return f(caf::meta::type_name("errand_goes_on"), x.errand, x.attempt);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, sync_on&) {
  return f(caf::meta::type_name("sync_on"));
}

}  // namespace tandem::actors

// These stay within a process.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::borrow)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::borrowed)
