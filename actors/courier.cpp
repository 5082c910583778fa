#include "actors/courier.hpp"

#include "actors/fault.hpp"
#include "actors/link.hpp"
#include "actors/messages.hpp"
#include "actors/reach.hpp"

#include <cstring>
#include <optional>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = courier_actor::stateful_pointer<courier_state>;

// One range of moved_bytes_max, over the slowest link that is worth training over.
constexpr auto range_deadline = std::chrono::seconds(60);

// Of the link's pool where there is a link; how many there are is bounded by moved_at_once.
transport::buffer_ptr buffer_for(caf::actor_system& system, std::size_t bytes) {
  if (system.has_network_manager())
    if (auto taken = link_of(system).buffers().take(bytes)) return *std::move(taken);
  return transport::buffer_pool::take_small(bytes);
}

error gone() { return {errc::unavailable, "the job has left the device", ""}; }

result<tensor_ref> read(self_pointer self, const train::memory_range& what) {
  const auto memory = self->state.memory.lock();
  if (!memory) return gone();
  transport::buffer_ptr copy;
  const auto read = memory->read(what, [&](std::size_t bytes) {
    copy = buffer_for(self->system(), bytes);
    return copy->data();
  });
  if (!read) return read.error();
  const auto size = copy->size();
  return tensor_ref{tensor_type::u8, {size}, std::move(copy)};
}

result<void> write(const courier_state& state, const train::memory_range& what,
                   const tensor_ref& bytes) {
  const auto memory = state.memory.lock();
  if (!memory) return gone();
  return memory->write(what, bytes.data->bytes());
}

// Ranges on their way, in order; the first failure ends it.
struct errand {
  bool brings = false;
  std::vector<train::memory_range> what;
  std::vector<courier_actor> group;
  std::optional<int> buddy;  // what is brought is a copy, for this rank to keep
  std::size_t next = 0;
  std::size_t on_the_way = 0;
  bool over = false;
  std::uint64_t bytes = 0;
  caf::typed_response_promise<ranges_moved> done;
};
using errand_pointer = std::shared_ptr<errand>;

void go_on(self_pointer self, const errand_pointer& run);

void end(self_pointer self, const errand_pointer& run, const caf::error& why) {
  if (std::exchange(run->over, true)) return;
  (run->buddy ? self->state.keeping : self->state.on_errand) = false;
  if (why)
    run->done.deliver(why);
  else
    run->done.deliver(ranges_moved{run->bytes});
}

void arrived(self_pointer self, const errand_pointer& run, std::size_t bytes,
             const result<void>& written) {
  --run->on_the_way;
  run->bytes += bytes;
  if (!written) return end(self, run, to_caf(written.error()));
  go_on(self, run);
}

void send_next(self_pointer self, const errand_pointer& run) {
  const auto what = run->what[run->next++];
  const auto& peer = run->group[static_cast<std::size_t>(what.rank)];
  const auto failed = [=](const caf::error& why) {
    end(self, run, is_refusal(why) ? why : to_caf(rank_out_of_reach(what.rank, why)));
  };
  ++run->on_the_way;
  if (run->brings) {
    self->request(peer, range_deadline, fetch_range{what})
        .then(
            [=](const tensor_ref& bytes) {
              if (run->over) return;
              const auto to = run->buddy ? train::kept_at(what, *run->buddy) : what;
              arrived(self, run, bytes.data->size(), write(self->state, to, bytes));
            },
            failed);
    return;
  }
  auto bytes = read(self, what);
  if (!bytes) return end(self, run, to_caf(bytes.error()));
  self->request(peer, range_deadline, store_range{what, *std::move(bytes)})
      .then([=](const ranges_moved& there) { arrived(self, run, there.bytes, {}); }, failed);
}

void go_on(self_pointer self, const errand_pointer& run) {
  // What orders need goes first: a copy is waited for later, if at all.
  const auto at_once = run->buddy ? 1 : moved_at_once;
  while (!run->over && run->next < run->what.size() && run->on_the_way < at_once)
    send_next(self, run);
  if (!run->over && run->on_the_way == 0) end(self, run, {});
}

caf::result<ranges_moved> begin(self_pointer self, bool brings,
                                const std::vector<train::memory_range>& what,
                                const std::vector<courier_actor>& group,
                                std::optional<int> buddy = {}) {
  auto& under_way = buddy ? self->state.keeping : self->state.on_errand;
  if (under_way) return to_caf({errc::conflict, "ranges are on their way already", ""});
  for (const auto& one : what)
    if (one.rank < 0 || one.rank >= std::ssize(group) || !group[static_cast<std::size_t>(one.rank)])
      return to_caf({errc::bad_request,
                     "no courier of rank " + std::to_string(one.rank) + " in a group of " +
                         std::to_string(group.size()),
                     ""});
  for (const auto& one : what)
    if (buddy && !train::has_copy(one.arena))
      return to_caf({errc::bad_request, "ranges that nobody keeps a copy of", ""});
  auto run = std::make_shared<errand>();
  run->brings = brings;
  run->what = train::cut(what, moved_bytes_max);
  run->group = group;
  run->buddy = buddy;
  run->done = self->make_response_promise<ranges_moved>();
  auto answer = run->done;
  under_way = true;
  go_on(self, run);
  return answer;
}

}  // namespace

courier_actor::behavior_type courier(self_pointer self,
                                     const std::shared_ptr<train::trainer_memory>& memory,
                                     const caf::strong_actor_ptr& device) {
  keep_exception_text(self);
  self->state.memory = memory;
  self->monitor(caf::actor_cast<caf::actor>(device));
  self->set_down_handler([=](const caf::down_msg&) { self->quit(); });
  return {
      [=](const fetch_range& order) -> caf::result<tensor_ref> {
        auto bytes = read(self, order.what);
        if (!bytes) return to_caf(bytes.error());
        return *std::move(bytes);
      },
      [=](const store_range& order) -> caf::result<ranges_moved> {
        if (auto written = write(self->state, order.what, order.bytes); !written)
          return to_caf(written.error());
        return ranges_moved{order.bytes.data->size()};
      },
      [=](const bring_ranges& order) -> caf::result<ranges_moved> {
        if (self->state.on_errand)
          return to_caf({errc::conflict, "ranges are on their way already", ""});
        const auto here = self->state.memory.lock();
        if (!here) return to_caf(gone());
        if (auto room = here->expect(order.kind, order.home); !room) return to_caf(room.error());
        return begin(self, true, order.what, order.group);
      },
      [=](const take_ranges& order) { return begin(self, false, order.what, order.group); },
      [=](const keep_ranges& order) {
        return begin(self, true, order.what, order.group, order.buddy);
      },
  };
}

}  // namespace tandem::actors
