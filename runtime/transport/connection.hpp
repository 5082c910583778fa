// What the progress thread knows of one peer: both lanes, the frames on their way out and in.
// Touched by that thread only.
#pragma once

#include "runtime/transport/control_lane.hpp"
#include "runtime/transport/fabric.hpp"
#include "runtime/transport/handshake.hpp"

#include <ucp/api/ucp.h>

#include <chrono>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>

namespace tandem::transport {

using steady = std::chrono::steady_clock;

struct connection;
class data_lane;

// A frame on its way out; lives until UCX has let go of its memory.
struct outgoing {
  bytes header;
  bytes body;
  std::vector<buffer_ptr> attachments;
  std::vector<ucp_dt_iov_t> pieces;
  peer_ptr to;
  std::uint64_t charged = 0;  // of the peer's window
  data_lane* home = nullptr;
  std::list<outgoing>::iterator place;
};

// A frame on its way in. Frames are delivered in the order of their headers, so one waits here
// until it is complete and those before it are delivered.
struct incoming {
  enum class state : std::uint8_t { no_memory, receiving, complete, broken };
  state now = state::receiving;
  frame_header header;
  bytes body;
  std::vector<buffer_ptr> attachments;
  std::vector<ucp_dt_iov_t> pieces;
  std::uint64_t size = 0;      // header, body and attachments
  void* descriptor = nullptr;  // of UCX, until the receive is posted
  connection* from = nullptr;  // none: the peer is gone, only UCX still writes here
  data_lane* home = nullptr;
  std::list<incoming>::iterator place;
};

struct connection {
  control_lane lane;
  std::unique_ptr<handshake> shake;
  steady::time_point began;
  steady::time_point heard;
  std::optional<address> dialled_to;                              // by us
  std::vector<std::function<void(result<peer_ptr>)>> awaited_by;  // who dialled
  peer_ptr who;                                                   // once it is up
  std::unique_ptr<data_lane> data;                                // once the peer is to know it
  ucp_ep_h endpoint = nullptr;
  std::uint64_t frames_out = 0;
  std::uint64_t frames_in = 0;         // headers seen
  std::uint64_t frames_delivered = 0;  // and handed up
  std::uint64_t frames_taken = 0;      // of ours by it, as its last ping said
  steady::time_point taken_at;         // when that last grew, or nothing was under way
  std::deque<incoming*> arriving;
  std::uint64_t bytes_arriving = 0;
  std::optional<bye> farewell;
  steady::time_point farewell_ends;
  std::optional<error> failed;  // to be dropped as soon as no callback is on the stack

  // `reap_due` is set when this one may have to be dropped.
  connection(control_lane with, bool& reap_due);
  ~connection();
  bool proven() const {
    return shake->now() == handshake::state::proven || shake->now() == handshake::state::done;
  }
  void fail(error why) {
    if (!failed) failed = std::move(why);
    reap_due_ = true;
  }
  void frame_delivered() {
    ++frames_delivered;
    if (farewell) reap_due_ = true;
  }
  void said_farewell(bye words, steady::time_point ends) {
    farewell = std::move(words);
    farewell_ends = ends;
    reap_due_ = true;
  }
  // It left, and what it had sent before is here.
  bool has_left() const {
    return farewell && frames_delivered >= farewell->frames_sent && arriving.empty();
  }

 private:
  bool& reap_due_;
};

}  // namespace tandem::transport
