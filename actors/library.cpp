#include "actors/library.hpp"

#include "actors/courier.hpp"
#include "actors/fault.hpp"
#include "actors/link.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = library_actor::stateful_pointer<library_state>;
using key = library_state::key;

constexpr std::size_t entries_max = 64;
constexpr std::size_t waiting_max = 1024;          // for the hashes of one path
constexpr std::size_t pieces_on_the_way_max = 32;  // to all nodes together
constexpr auto kept_open = std::chrono::minutes(1);

result<transport::buffer_ptr> buffer_for(self_pointer self, std::size_t bytes) {
  auto& on_the_way = self->state.on_the_way;
  std::erase_if(on_the_way, [](const auto& one) { return one.expired(); });
  if (on_the_way.size() >= pieces_on_the_way_max)
    return error{
        errc::overloaded,
        fmt::format("{} pieces are on their way to nodes, which is the most", on_the_way.size()),
        ""};
  if (!self->system().has_network_manager()) return transport::buffer_pool::take_small(bytes);
  auto taken = link_of(self->system()).buffers().take(bytes);
  if (!taken) return error{errc::overloaded, taken.error().detail, ""};
  on_the_way.push_back(*taken);
  return taken;
}

void tidy(self_pointer self) {
  auto& entries = self->state.entries;
  const auto now = self->clock().now();
  std::erase_if(entries, [&](const auto& one) {
    return one.second.waiting.empty() && now - one.second.last_word > kept_open;
  });
  if (!entries.empty()) self->delayed_send(self, kept_open, tidy_up{});
}

// Whoever still reads what is closed here is told to ask for its listing again.
void make_room(std::map<key, library_state::lent>& entries) {
  entries.erase(std::ranges::min_element(entries, {}, [](const auto& one) {
    return std::pair(!one.second.waiting.empty(), one.second.last_word);
  }));
}

// The open entry of a path, listed anew where its files have changed.
result<library_state::lent*> lend(self_pointer self, const key& which) {
  auto& entries = self->state.entries;
  auto found = entries.find(which);
  if (found == entries.end() ||
      (found->second.waiting.empty() && !found->second.entry.is_current())) {
    auto entry = shelf::shelf_entry::open(self->state.roots, which.first, which.second);
    if (!entry) {
      log_warning("a node asked for files: {}", entry.error().detail);
      return entry.error();
    }
    if (found == entries.end() && entries.size() >= entries_max) make_room(entries);
    if (entries.empty()) self->delayed_send(self, kept_open, tidy_up{});
    if (found != entries.end()) entries.erase(found);
    found = entries.emplace(which, library_state::lent{*std::move(entry), {}, {}}).first;
  }
  found->second.last_word = self->clock().now();
  return &found->second;
}

void hash_more(self_pointer self, const key& which) {
  const auto found = self->state.entries.find(which);
  if (found == self->state.entries.end() || found->second.waiting.empty()) return;
  auto& lent = found->second;
  const auto done = lent.entry.hash_some(self->state.known);
  if (done && !*done) return self->send(self, hash_on{which.first, which.second});
  for (auto& answer : std::exchange(lent.waiting, {}))
    if (done)
      answer.deliver(lent.entry.facts());
    else
      answer.deliver(to_caf(done.error()));
  lent.last_word = self->clock().now();
}

caf::result<shelf::listing> list(self_pointer self, const list_files& order) {
  const key which{order.path, order.what};
  auto lent = lend(self, which);
  if (!lent) return to_caf(lent.error());
  auto& entry = **lent;
  if (!order.with_hashes || entry.entry.facts().is_hashed()) return entry.entry.facts();
  if (entry.waiting.size() >= waiting_max)
    return to_caf({errc::overloaded,
                   fmt::format("{} nodes wait for the hashes of {}, which is the most",
                               entry.waiting.size(), order.path),
                   ""});
  auto answer = self->make_response_promise<shelf::listing>();
  entry.waiting.push_back(answer);
  if (entry.waiting.size() == 1) self->send(self, hash_on{which.first, which.second});
  return answer;
}

caf::result<tensor_ref> read(self_pointer self, const read_file& order) {
  const auto found = self->state.entries.find({order.path, order.what});
  if (found == self->state.entries.end())
    return to_caf({errc::conflict, fmt::format("{} was not listed of late", order.path), ""});
  if (order.bytes == 0 || order.bytes > moved_bytes_max)
    return to_caf(
        {errc::bad_request,
         fmt::format("a piece of {} bytes, 1 to {} are allowed", order.bytes, moved_bytes_max),
         "bytes"});
  found->second.last_word = self->clock().now();
  auto buffer = buffer_for(self, order.bytes);
  if (!buffer) return to_caf(buffer.error());
  if (auto fine = found->second.entry.read(order.file, order.offset, (*buffer)->bytes()); !fine)
    return to_caf(fine.error());
  return tensor_ref{tensor_type::u8, {order.bytes}, *std::move(buffer)};
}

}  // namespace

library_actor::behavior_type library(self_pointer self, shelf::shelf_roots roots) {
  keep_exception_text(self);
  self->state.roots = std::move(roots);
  return {
      [=](const list_files& order) { return list(self, order); },
      [=](const read_file& order) { return read(self, order); },
      [=](const hash_on& order) {
        hash_more(self, {order.path, order.what});
      },
      [=](tidy_up) { tidy(self); },
  };
}

}  // namespace tandem::actors
