// The library: on the head, gives the files of the served model and of its jobs' checkpoints to
// nodes that lack them, by pieces beside messages. Published as "library". What is no model and no
// checkpoint of this head is refused (runtime/shelf/shelf.hpp). A thread of its own reads and
// hashes; its mailbox is looked at between two stretches of a hash.
#pragma once

#include "actors/tensor_ref.hpp"
#include "runtime/shelf/shelf.hpp"

#include <caf/all.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::actors {

inline constexpr const char* library_name = "library";  // as the link publishes it

// borrower to library: what has this path? Without hashes at once; with them once they are there,
// computed the first time. The files can be read (read_file) until a minute after the last word.
struct list_files {
  std::string path;
  shelf::purpose what = shelf::purpose::model;
  bool with_hashes = false;
};
// borrower to library: these bytes of a path that was listed. Refused while too many are on their
// way (overloaded), and where it is not listed any more (conflict): list it again.
struct read_file {
  std::string path;
  shelf::purpose what = shelf::purpose::model;
  std::uint32_t file = 0;  // of the listing
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};
// library to itself: go on with a hash, and look what nobody reads any more.
struct hash_on {
  std::string path;
  shelf::purpose what = shelf::purpose::model;
};
struct tidy_up {};

using library_actor = caf::typed_actor<caf::replies_to<list_files>::with<shelf::listing>,
                                       caf::replies_to<read_file>::with<tensor_ref>,
                                       caf::reacts_to<hash_on>, caf::reacts_to<tidy_up>>;

struct library_state {
  struct lent {
    shelf::shelf_entry entry;
    std::vector<caf::typed_response_promise<shelf::listing>> waiting;  // for its hashes
    caf::actor_clock::time_point last_word{};
  };
  using key = std::pair<std::string, shelf::purpose>;
  shelf::shelf_roots roots;
  shelf::known_hashes known;
  std::map<key, lent> entries;
  std::vector<std::weak_ptr<transport::buffer>> on_the_way;

  static inline const char* name = "library";
};

library_actor::behavior_type library(library_actor::stateful_pointer<library_state> self,
                                     shelf::shelf_roots roots);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, list_files& x) {
  return f(caf::meta::type_name("list_files"), x.path, x.what, x.with_hashes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, read_file& x) {
  return f(caf::meta::type_name("read_file"), x.path, x.what, x.file, x.offset, x.bytes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, hash_on& x) {
  return f(caf::meta::type_name("hash_on"), x.path, x.what);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, tidy_up&) {
  return f(caf::meta::type_name("tidy_up"));
}

}  // namespace tandem::actors

namespace tandem::shelf {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, file_place& x) {
  return f(caf::meta::type_name("file_place"), x.device, x.inode, x.changed_ns);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, listed_file& x) {
  return f(caf::meta::type_name("listed_file"), x.name, x.bytes, x.sha256, x.place);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, listing& x) {
  return f(caf::meta::type_name("listing"), x.machine, x.name, x.is_folder, x.files);
}

}  // namespace tandem::shelf
