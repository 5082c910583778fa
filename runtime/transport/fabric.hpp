// Nodes that trust each other exchange frames: a body and, beside it, buffers that are never copied
// on the way. One thread owns UCX and every connection; everybody else only queues.
//
//   auto fabric = transport::fabric::open(options, events);
//   (*fabric)->dial(*address::parse("10.0.0.2:7000"), [](result<peer_ptr> found) { ... });
//   (*fabric)->send(peer, std::move(body), {tensor});
//
// Two lanes a peer: a TCP connection for handshake, pings and farewell, so that no tensor delays
// them and a killed process is noticed at once; and UCX for frames, opened only after the
// handshake.
#pragma once

#include "runtime/transport/buffer_pool.hpp"
#include "runtime/transport/frame.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tandem::transport {

struct fabric_options {
  std::string listen = "127.0.0.1:0";  // port 0: any
  std::string advertise;               // what others dial; needed when `listen` is every interface
  std::string cluster = "tandem";
  std::string build;       // nodes of different builds refuse each other
  std::string secret;      // none: loopback addresses only
  std::string transports;  // UCX_TLS; empty: shared memory on loopback, and tcp elsewhere
  std::string devices;     // UCX_NET_DEVICES; empty: the interface of `listen`

  bool block = false;                   // never spin: for hosts with more threads than cores
  std::chrono::microseconds spin{100};  // at most, while work comes as soon as that
  std::chrono::milliseconds silent_after{3000};      // a peer that says nothing is dead
  std::chrono::milliseconds stalled_after{60'000};   // and one that takes no frame for so long
  std::chrono::milliseconds handshake_within{2000};  // or it is dropped
  int half_open_max = 32;  // strangers in the middle of the handshake; the oldest makes room
  int peers_max = 1024;
  std::uint64_t window_bytes = 256ULL << 20;      // a peer: queued and not yet taken by UCX
  std::uint64_t message_bytes_max = 16ULL << 20;  // a body
  std::uint64_t tensor_bytes_max = 1ULL << 30;    // the buffers of one frame
  std::uint64_t pool_bytes = 2ULL << 30;
};

// One connection to another node. When it is gone it stays gone.
class peer {
 public:
  peer(node_identity node, bool dialled) : node_(node), dialled_(dialled) {}
  const node_identity& node() const { return node_; }
  bool dialled() const { return dialled_; }  // by this side
  bool gone() const { return gone_.load(); }
  std::uint64_t bytes_in_flight() const { return in_flight_.load(); }

 private:
  friend class fabric_core;
  friend class data_lane;
  const node_identity node_;
  const bool dialled_;
  std::atomic<bool> gone_{false};
  std::atomic<std::uint64_t> in_flight_{0};
  void* connection_ = nullptr;  // of the progress thread
};
using peer_ptr = std::shared_ptr<peer>;

// All of it is called on the progress thread: look, take, and be quick.
class fabric_events {
 public:
  virtual ~fabric_events() = default;
  virtual void peer_up(const peer_ptr& who) = 0;
  // In the order of sending; the body is a view for the time of the call.
  virtual void frame_arrived(const peer_ptr& from, std::span<const char> body,
                             std::vector<buffer_ptr> attachments) = 0;
  // The last word about it; everything still queued for it is dropped.
  virtual void peer_gone(const peer_ptr& who, const error& why) = 0;
};

struct fabric_counts {
  std::uint64_t refused_joins = 0;   // handshakes that ended in a refusal, either side's
  std::uint64_t dropped_joins = 0;   // too slow, or pushed out by others
  std::uint64_t unknown_frames = 0;  // with no peer's token
  std::uint64_t half_open = 0;       // now
  std::uint64_t peers = 0;           // now
};

class fabric_core;

class fabric {
 public:
  enum class urgency : std::uint8_t { normal, must_go };

  // `events` must outlive the fabric.
  static result<std::unique_ptr<fabric>> open(fabric_options options, fabric_events& events);
  // Says farewell to every peer and stops; no event comes after it. Also done by the destructor.
  void close(std::string reason = "shut down");
  ~fabric();

  const node_identity& self() const;
  const fabric_options& options() const;
  const std::shared_ptr<buffer_pool>& buffers() const;
  fabric_counts counts() const;

  // `done` is called once, on the progress thread; on success peer_up came before it. Who dials an
  // address that is being dialled, or has been and stands, gets that peer.
  void dial(const address& where, std::function<void(result<peer_ptr>)> done);
  // Queued when it returns well. Refused: the peer is gone (unavailable), its window is full
  // (overloaded), the frame is above the bounds (too_large). What must go may fill the window
  // twice; a peer that takes even that not is dropped.
  result<void> send(const peer_ptr& to, bytes body, std::vector<buffer_ptr> attachments = {},
                    urgency how = urgency::normal);
  void drop(const peer_ptr& who, std::string reason);
  // Whether a frame of this size may travel at all.
  result<void> check_size(std::size_t body_bytes, std::span<const buffer_ptr> attachments) const;
  // Runs on the progress thread, after what was queued before; never once the fabric is closed.
  void post(std::function<void()> call);

 private:
  explicit fabric(std::unique_ptr<fabric_core> core);
  std::unique_ptr<fabric_core> core_;
};

}  // namespace tandem::transport
