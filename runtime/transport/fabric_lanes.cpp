// The connections of the progress thread: who comes, proves itself, falls silent, and goes.
#include "runtime/log.hpp"
#include "runtime/transport/fabric_core.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace tandem::transport {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t max_unsent_control = 64 << 10;
constexpr auto last_frames_take_at_most = 1s;

std::string seconds(steady::duration d) {
  return fmt::format("{:.1f} s", std::chrono::duration<double>(d).count());
}

}  // namespace

void fabric_core::poll_lanes(int timeout_ms) {
  std::array<epoll_event, 64> events;
  const int count =
      epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const auto& e = events[static_cast<std::size_t>(i)];
    if (e.data.ptr == &lanes_) continue;  // the loop looks anyway
    if (e.data.ptr == &bell_) {
      std::uint64_t rings = 0;
      if (read(bell_.get(), &rings, sizeof rings) < 0) continue;
    } else if (e.data.ptr == &listener_) {
      accept_all();
    } else {
      serve_lane(*static_cast<connection*>(e.data.ptr), (e.events & ~EPOLLOUT) != 0);
    }
  }
  reap();  // no event of this round names one of them any more
}

void fabric_core::keep_time(steady::time_point now) {
  // Who was stopped itself must not blame others for the silence.
  const bool was_stopped = now - last_tick_ > std::max<steady::duration>(2 * tick_, 200ms);
  last_tick_ = now;
  if (accept_paused_) {
    accept_paused_ = false;
    watch(&listener_, listener_.get(), EPOLLIN, EPOLL_CTL_MOD);
  }
  for (const auto& one : connections_) {
    if (one->failed) continue;
    if (!one->who) {
      if (now - one->began > options_.handshake_within) {
        ++dropped_joins_;
        one->fail({errc::timed_out,
                   fmt::format("no handshake within {}", seconds(options_.handshake_within)), ""});
      }
      continue;
    }
    if (one->farewell) {
      if (now >= one->farewell_ends)
        one->fail({errc::unavailable, "it left: " + one->farewell->reason, ""});
      continue;
    }
    if (was_stopped) one->heard = one->taken_at = now;
    look_after(*one, now);
  }
  settle_given_up(now);
  auto unknown = unknown_before_;
  for (const auto* lane : lanes_) unknown += lane->unknown_frames();
  unknown_frames_ = unknown;
  reap();
}

// Pings tell of the other lane too: a peer may answer them and yet take no frame.
void fabric_core::look_after(connection& on, steady::time_point now) {
  if (on.frames_taken == on.frames_out) on.taken_at = now;
  if (now - on.heard > options_.silent_after)
    return on.fail({errc::timed_out, fmt::format("silent for {}", seconds(now - on.heard)), ""});
  if (now - on.taken_at > options_.stalled_after)
    return on.fail({errc::timed_out,
                    fmt::format("it answers, but has taken {} of {} frames for {}", on.frames_taken,
                                on.frames_out, seconds(now - on.taken_at)),
                    ""});
  if (on.lane.bytes_unsent() >= max_unsent_control) return;
  const auto sent =
      on.lane.send(encode_record(record_kind::ping, encode_body(ping{on.frames_delivered})));
  if (!sent) on.fail(sent.error());
}

void fabric_core::accept_all() {
  for (int i = 0; i < 64; ++i) {
    file_descriptor socket(
        accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED)
        return;
      // No descriptors left: strangers make room, and the port rests until the next tick.
      make_room_for_stranger();
      accept_paused_ = true;
      watch(&listener_, listener_.get(), 0, EPOLL_CTL_MOD);
      return;
    }
    if (half_open() >= options_.half_open_max) make_room_for_stranger();
    auto& on = add(control_lane(std::move(socket)), handshake::role::listener);
    watch(&on, on.lane.fd(), EPOLLIN, EPOLL_CTL_ADD);
  }
}

int fabric_core::half_open() const {
  return static_cast<int>(std::ranges::count_if(
      connections_, [](const auto& one) { return !one->who && !one->dialled_to && !one->failed; }));
}

void fabric_core::make_room_for_stranger() {
  for (const auto& one : connections_) {  // the oldest stands first
    if (one->who || one->dialled_to || one->failed || one->proven()) continue;
    ++dropped_joins_;
    one->fail({errc::overloaded, "others came while it had not said who it is", ""});
    return;
  }
}

connection& fabric_core::add(control_lane lane, handshake::role side) {
  connections_.push_back(std::make_unique<connection>(std::move(lane), reap_due_));
  auto& made = *connections_.back();
  made.shake = std::make_unique<handshake>(side, own_, fresh_nonce(),
                                           [this, &made] { return open_data_lane(made); });
  made.began = made.heard = steady::now();
  half_open_ = static_cast<std::uint64_t>(half_open());
  return made;
}

void fabric_core::watch(void* what, int fd, std::uint32_t events, int how) {
  epoll_event e{};
  e.events = events;
  e.data.ptr = what;
  epoll_ctl(epoll_.get(), how, fd, &e);
}

void fabric_core::start_dial(const address& where, std::function<void(result<peer_ptr>)> done) {
  if (auto trusted = check_trust(where, options_.secret); !trusted) return done(trusted.error());
  if (where == own_.self.listen)
    return done(
        error{errc::conflict, fmt::format("{} is this node itself", where.to_string()), ""});
  // Two connections would make each other look like a process that began anew.
  for (const auto& one : connections_) {
    if (one->dialled_to != where || one->failed || one->farewell) continue;
    if (one->who) return done(one->who);
    one->awaited_by.push_back(std::move(done));
    return;
  }
  auto lane = control_lane::dial(where);
  if (!lane) return done(lane.error());
  auto& on = add(*std::move(lane), handshake::role::dialler);
  on.dialled_to = where;
  on.awaited_by.push_back(std::move(done));
  watch(&on, on.lane.fd(), EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
  // The greeting waits in the lane until the connection stands.
  if (auto sent = on.lane.send(on.shake->greeting()); !sent) on.fail(sent.error());
}

void fabric_core::serve_lane(connection& on, bool readable) {
  if (on.failed) return;
  if (auto sent = on.lane.flush(); !sent) return on.fail(sent.error());
  if (readable) {
    const auto received = on.lane.receive();
    while (!on.failed) {
      auto next = on.lane.next();
      if (!next) {
        ++refused_joins_;
        if (!on.who) {
          const auto said = on.lane.send(
              encode_record(record_kind::refusal, encode_refusal(next.error().detail)));
          if (!said) return on.fail(said.error());
        }
        return on.fail({errc::bad_request, "it sent " + next.error().detail, ""});
      }
      if (!*next) break;
      on.heard = steady::now();
      take_record(on, **next);
    }
    if (!received) {
      // What its farewell counts may still be on the data lane.
      if (on.farewell && !on.failed) {
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, on.lane.fd(), nullptr);
        return;
      }
      return on.fail(received.error());
    }
  }
  watch(&on, on.lane.fd(), on.lane.wants_to_write() ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

void fabric_core::take_record(connection& on, const record& what) {
  if (!on.who) return take_handshake(on, what);
  switch (what.kind) {
    case record_kind::ping:
      return take_ping(on, what);
    case record_kind::ready:
      return;  // ready: a frame was faster
    case record_kind::bye: {
      auto said = decode_bye(what.body);
      if (!said) return on.fail(said.error());
      return on.said_farewell(*std::move(said), steady::now() + last_frames_take_at_most);
    }
    case record_kind::refusal: {
      const auto reason = decode_refusal(what.body);
      return on.fail({errc::unavailable, "it refused: " + (reason ? *reason : ""), ""});
    }
    default:
      return on.fail({errc::bad_request, "it sent a record that does not belong here", ""});
  }
}

void fabric_core::take_ping(connection& on, const record& what) {
  const auto said = decode_ping(what.body);
  if (!said) return on.fail(said.error());
  if (said->frames_taken > on.frames_out || said->frames_taken < on.frames_taken)
    return on.fail({errc::bad_request,
                    fmt::format("it says that it took {} frames: it was sent {} and had taken {}",
                                said->frames_taken, on.frames_out, on.frames_taken),
                    ""});
  if (said->frames_taken > on.frames_taken) on.taken_at = steady::now();
  on.frames_taken = said->frames_taken;
}

void fabric_core::take_handshake(connection& on, const record& what) {
  bytes answer;
  const auto taken = on.shake->take(what, answer);
  if (!taken) {
    ++refused_joins_;
    if (const auto sent = on.lane.send(answer); !sent) return on.fail(sent.error());
    return on.fail(taken.error());
  }
  // The endpoint stands before the peer may use it.
  if (on.proven() && on.endpoint == nullptr && !connect_proven(on)) return;
  if (const auto sent = on.lane.send(answer); !sent) return on.fail(sent.error());
  if (on.shake->now() == handshake::state::done) come_up(on);
}

bool fabric_core::connect_proven(connection& on) {
  const auto refuse = [&](error why) {
    ++refused_joins_;
    const auto said = on.lane.send(encode_record(record_kind::refusal, encode_refusal(why.detail)));
    on.fail(said ? std::move(why) : said.error());
    return false;
  };
  if (peers_ >= static_cast<std::uint64_t>(options_.peers_max))
    return refuse(
        {errc::overloaded, fmt::format("{} peers are connected already", peers_.load()), ""});
  if (auto made = on.data->connect(on); !made) return refuse(made.error());
  return true;
}

// True when frames of it may be delivered.
bool fabric_core::come_up(connection& on) {
  if (on.who) return true;
  if (on.failed || on.shake->now() != handshake::state::done) return false;
  const bool dialled = on.dialled_to.has_value();
  // It would not come a second time if the first connection were any good.
  for (const auto& one : connections_)
    if (one->who && one->who->dialled() == dialled && one->who->node() == on.shake->peer())
      one->fail({errc::unavailable, "it connected anew", ""});
  on.who = std::make_shared<peer>(on.shake->peer(), dialled);
  on.who->connection_ = &on;
  on.heard = on.taken_at = steady::now();
  ++peers_;
  half_open_ = static_cast<std::uint64_t>(half_open());
  events_.peer_up(on.who);
  for (const auto& done : std::exchange(on.awaited_by, {})) done(on.who);
  return true;
}

void fabric_core::reap() {
  reap_due_ = false;
  for (auto it = connections_.begin(); it != connections_.end();) {
    auto& on = **it;
    if (on.has_left()) on.fail({errc::unavailable, "it left: " + on.farewell->reason, ""});
    const auto which = it++;
    if (on.failed) remove(which);
  }
}

void fabric_core::remove(std::list<std::unique_ptr<connection>>::iterator which) {
  auto on = std::move(*which);
  connections_.erase(which);
  error why = *on->failed;
  // Its own last words explain more than a broken endpoint does.
  if (on->who && !on->farewell && on->lane.receive().has_value() == false)
    for (auto next = on->lane.next(); next && *next; next = on->lane.next())
      if ((**next).kind == record_kind::bye)
        if (const auto said = decode_bye((**next).body))
          why = {errc::unavailable, "it left: " + said->reason, ""};
  if (on->farewell) why = {errc::unavailable, "it left: " + on->farewell->reason, ""};
  give_up_lane(*on);
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, on->lane.fd(), nullptr);
  half_open_ = static_cast<std::uint64_t>(half_open());
  if (!on->who) {
    why.detail = on->dialled_to ? fmt::format("{}: {}", on->dialled_to->to_string(), why.detail)
                                : fmt::format("a node that joined: {}", why.detail);
    log_debug("{}", why.detail);
    for (const auto& done : on->awaited_by) done(why);
    return;
  }
  --peers_;
  on->who->gone_ = true;
  on->who->connection_ = nullptr;
  why.detail = fmt::format("{}: {}", on->who->node().listen.to_string(), why.detail);
  log_debug("peer {} is gone: {}", on->who->node().to_string(), on->failed->detail);
  events_.peer_gone(on->who, why);
}

}  // namespace tandem::transport
