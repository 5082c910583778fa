#include "actors/borrower.hpp"

#include "actors/courier.hpp"
#include "actors/fault.hpp"
#include "actors/link.hpp"
#include "actors/remote_node.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = borrower_actor::stateful_pointer<borrower_state>;
using errand = borrower_state::errand;
using phase = errand::phase;

constexpr std::size_t errands_max = 4096;
constexpr std::size_t errands_at_once = 4;  // with moved_at_once pieces each
constexpr auto looks_at_lock_every = std::chrono::milliseconds(20);

// Null: it is over, or this attempt is.
errand* errand_of(self_pointer self, std::uint64_t id, std::uint64_t attempt) {
  const auto found = self->state.errands.find(id);
  return found == self->state.errands.end() || found->second.attempt != attempt ? nullptr
                                                                                : &found->second;
}

error no_answer(const errand& run, const caf::error& why) {
  if (is_refusal(why)) return from_caf(why);
  if (why == caf::sec::request_timeout)
    return {errc::timed_out, "its library did not answer in time", ""};
  return {errc::unavailable, fmt::format("the head is gone ({} bytes had come)", run.fetched_bytes),
          ""};
}

void begin_waiting(self_pointer self);

void end(self_pointer self, std::uint64_t id, const result<borrowed>& with) {
  auto& state = self->state;
  const auto found = state.errands.find(id);
  auto run = std::move(found->second);
  state.errands.erase(found);
  state.by_path.erase({run.order.from, run.order.path, run.order.what});
  --state.errands_running;
  for (auto& answer : run.waiting)
    if (with)
      answer.deliver(*with);
    else
      answer.deliver(to_caf(with.error()));
  begin_waiting(self);
}

void fail(self_pointer self, std::uint64_t id, errand& run, error why) {
  const auto& options = self->state.options;
  why.detail = fmt::format("{} of the head cannot be had here: {}", run.order.path, why.detail);
  run.pause = std::clamp(run.pause * 2, options.first_pause, options.pause_max);
  // What is under way and right is kept where only the answer was missing.
  const bool goes_on = why.code == errc::overloaded || why.code == errc::timed_out;
  if (run.coming && goes_on && run.now == phase::fetch) {
    run.coming->ask_again();
  } else {
    run.coming.reset();
    run.now = phase::ask;
  }
  ++run.attempt;
  run.hasher.reset();
  run.on_the_way = 0;
  if (!is_worth_another_try(why) || self->clock().now() + run.pause > run.until) {
    log_error("{}", why.detail);
    return end(self, id, why);
  }
  if (std::has_single_bit(++run.failures))
    log_warning("{}; trying again in {} ms", why.detail, run.pause.count());
  self->delayed_send(self, run.pause, errand_goes_on{id, run.attempt});
}

void go_on(self_pointer self, std::uint64_t id, errand& run, phase next) {
  run.now = next;
  self->send(self, errand_goes_on{id, run.attempt});
}

// On a thread of its own, which nobody waits for but the end of the process, for one stretch.
void put_on_disk(self_pointer self, const shelf::listing& what, const shelf::held_path& where) {
  self->spawn<caf::detached + caf::linked>([sync = std::make_shared<shelf::disk_sync>(what, where)](
                                               caf::event_based_actor* own) -> caf::behavior {
    own->send(own, sync_on{});
    return {[=](sync_on) {
      const auto done = sync->advance();
      if (!done) log_warning("{}", done.error().detail);
      if (!done || *done)
        own->quit();
      else
        own->send(own, sync_on{});
    }};
  });
}

shelf::cache cache_of(self_pointer self) {
  return {self->state.options.folder, self->state.options.bytes_max};
}

void settle(self_pointer self, std::uint64_t id, errand& run) {
  const auto& options = self->state.options;
  const auto cache = cache_of(self);
  auto found = cache.find(run.there);
  if (!found) return fail(self, id, run, found.error());
  if (*found) {
    if (run.fetched) put_on_disk(self, run.there, **found);
    return end(self, id, borrowed{(*found)->path.string(), (*found)->hold});
  }
  auto begun = cache.begin(run.there);
  if (!begun) return fail(self, id, run, begun.error());
  if (*begun) {
    run.coming.emplace(**std::move(begun));
    return go_on(self, id, run, phase::look);
  }
  if (self->clock().now() - run.began > options.other_process_within)
    return fail(
        self, id, run,
        {errc::unavailable, "another process of this machine fetches it, and does not end", ""});
  run.now = phase::settle;
  self->delayed_send(self, looks_at_lock_every, errand_goes_on{id, run.attempt});
}

// --- what lies here under the same path ---------------------------------------------------------

void compare_more(self_pointer self, std::uint64_t id, errand& run) {
  if (run.comparing == run.there.files.size())
    return end(self, id, borrowed{run.order.path, nullptr});
  const auto& file = run.there.files[run.comparing];
  if (!run.hasher) {
    std::error_code failed;
    const auto path = std::filesystem::canonical(
        shelf::path_of(run.there, run.comparing, run.order.path), failed);
    auto opened = shelf::open_file::open(path);
    if (failed || !opened || opened->bytes() != file.bytes) return settle(self, id, run);
    run.hasher.emplace(*std::move(opened), file.bytes);
  }
  const auto done = run.hasher->advance();
  if (!done) return settle(self, id, run);
  if (*done) {
    const auto digest = run.hasher->take_digest().finish();
    run.hasher.reset();
    ++run.comparing;
    if (digest != file.sha256) {
      log_info("{} here has other bytes than the head's", run.order.path);
      return settle(self, id, run);
    }
  }
  go_on(self, id, run, phase::compare);
}

void ask_listing(self_pointer self, std::uint64_t id, errand& run, bool with_hashes);

void listed(self_pointer self, std::uint64_t id, errand& run, const shelf::listing& there,
            bool with_hashes) {
  if (auto fine = shelf::check(there); !fine) return fail(self, id, run, fine.error());
  if (with_hashes && !there.is_hashed())
    return fail(self, id, run, {errc::bad_file, "its listing came without hashes", ""});
  run.there = there;
  const auto here = shelf::compare(there, run.order.path);
  if (here == shelf::likeness::same) return end(self, id, borrowed{run.order.path, nullptr});
  if (!with_hashes) return ask_listing(self, id, run, true);
  if (here == shelf::likeness::other) return settle(self, id, run);
  run.comparing = 0;
  go_on(self, id, run, phase::compare);
}

void ask_listing(self_pointer self, std::uint64_t id, errand& run, bool with_hashes) {
  const auto& options = self->state.options;
  self->request(run.library, with_hashes ? options.hashes_within : options.answer_within,
                list_files{run.order.path, run.order.what, with_hashes})
      .then(
          [=, at = run.attempt](const shelf::listing& there) {
            if (auto* now = errand_of(self, id, at)) listed(self, id, *now, there, with_hashes);
          },
          [=, at = run.attempt](const caf::error& why) {
            if (auto* now = errand_of(self, id, at)) fail(self, id, *now, no_answer(*now, why));
          });
}

void look_for_library(self_pointer self, std::uint64_t id, errand& run) {
  const auto head = to_identity(run.order.from);
  if (!head) return fail(self, id, run, {errc::unavailable, "nobody knows who gave the order", ""});
  link_of(self->system())
      .resolve<library_actor>(self, head->listen.to_string(), library_name,
                              self->state.options.answer_within)
      .then(
          [=, at = run.attempt](const caf::strong_actor_ptr& found) {
            auto* now = errand_of(self, id, at);
            if (!now) return;
            now->library = caf::actor_cast<library_actor>(found);
            ask_listing(self, id, *now, false);
          },
          [=, at = run.attempt](const caf::error& why) {
            auto* now = errand_of(self, id, at);
            if (!now) return;
            auto nobody = no_answer(*now, why);
            nobody.code = errc::unavailable;  // whatever the network calls it
            fail(self, id, *now, nobody);
          });
}

// --- pieces -------------------------------------------------------------------------------------

void finish(self_pointer self, std::uint64_t id, errand& run) {
  if (auto done = cache_of(self).finish(*run.coming); !done)
    return fail(self, id, run, done.error());
  run.coming.reset();
  run.fetched = true;
  using namespace std::chrono;
  log_info("{} was fetched from the head: {:.1f} MB in {} ms", run.order.path,
           static_cast<double>(run.fetched_bytes) / 1e6,
           duration_cast<milliseconds>(self->clock().now() - run.began).count());
  settle(self, id, run);
}

void fetch_more(self_pointer self, std::uint64_t id, errand& run);

void arrived(self_pointer self, std::uint64_t id, errand& run, std::uint64_t wanted,
             const tensor_ref& piece) {
  --run.on_the_way;
  if (piece.data->size() != wanted)
    return fail(
        self, id, run,
        {errc::bad_file,
         fmt::format("a piece of {} bytes came, {} were asked for", piece.data->size(), wanted),
         ""});
  if (auto written = run.coming->append(piece.data->bytes()); !written)
    return fail(self, id, run, written.error());
  run.fetched_bytes += wanted;
  fetch_more(self, id, run);
}

void fetch_more(self_pointer self, std::uint64_t id, errand& run) {
  if (run.coming->is_whole()) return finish(self, id, run);
  while (run.on_the_way < moved_at_once) {
    const auto piece = run.coming->next(moved_bytes_max);
    if (!piece) return;
    ++run.on_the_way;
    self->request(run.library, self->state.options.piece_within,
                  read_file{run.order.path, run.order.what, static_cast<std::uint32_t>(piece->file),
                            piece->offset, piece->bytes})
        .then(
            [=, at = run.attempt, bytes = piece->bytes](const tensor_ref& came) {
              if (auto* now = errand_of(self, id, at)) arrived(self, id, *now, bytes, came);
            },
            [=, at = run.attempt](const caf::error& why) {
              if (auto* now = errand_of(self, id, at)) fail(self, id, *now, no_answer(*now, why));
            });
  }
}

void look_more(self_pointer self, std::uint64_t id, errand& run) {
  const auto done = run.coming->look();
  if (!done) return fail(self, id, run, done.error());
  if (!*done) return go_on(self, id, run, phase::look);
  run.now = phase::fetch;
  fetch_more(self, id, run);
}

void act(self_pointer self, std::uint64_t id, errand& run) {
  switch (run.now) {
    case phase::wait:
      return;
    case phase::ask:
      return look_for_library(self, id, run);
    case phase::compare:
      return compare_more(self, id, run);
    case phase::settle:
      return settle(self, id, run);
    case phase::look:
      return look_more(self, id, run);
    case phase::fetch:
      return fetch_more(self, id, run);
  }
}

// The oldest first, as many as may run at once.
void begin_waiting(self_pointer self) {
  auto& state = self->state;
  for (auto& [id, run] : state.errands) {
    if (state.errands_running >= errands_at_once) return;
    if (run.now != phase::wait) continue;
    ++state.errands_running;
    run.began = self->clock().now();
    run.until = run.began + run.order.patience;
    go_on(self, id, run, phase::ask);
  }
}

caf::result<borrowed> take(self_pointer self, const borrow& order) {
  auto& state = self->state;
  const borrower_state::key key{order.from, order.path, order.what};
  if (const auto known = state.by_path.find(key); known != state.by_path.end()) {
    auto& run = state.errands.at(known->second);
    run.order.patience = std::max(run.order.patience, order.patience);
    run.until = std::max(run.until, self->clock().now() + order.patience);
    run.waiting.push_back(self->make_response_promise<borrowed>());
    return run.waiting.back();
  }
  if (state.errands.size() >= errands_max)
    return to_caf({errc::overloaded,
                   fmt::format("{} models and checkpoints are being fetched, which is the most",
                               state.errands.size()),
                   ""});
  const auto id = ++state.errands_taken;
  state.by_path[key] = id;
  auto& run = state.errands[id];
  run.order = order;
  auto answer = self->make_response_promise<borrowed>();
  run.waiting.push_back(answer);
  begin_waiting(self);
  return answer;
}

}  // namespace

bool is_worth_another_try(const error& why) {
  switch (why.code) {
    case errc::io:
    case errc::overloaded:
    case errc::bad_file:
    case errc::timed_out:
    case errc::conflict:
      return true;
    default:
      return false;
  }
}

borrower_actor::behavior_type borrower(self_pointer self, borrower_options options) {
  keep_exception_text(self);
  self->state.options = std::move(options);
  return {
      [=](const borrow& order) { return take(self, order); },
      [=](const errand_goes_on& what) {
        if (auto* run = errand_of(self, what.errand, what.attempt)) act(self, what.errand, *run);
      },
  };
}

}  // namespace tandem::actors
