// How two nodes come to trust each other, as a pure state machine: records in, records out.
//
//   dialler                                         listener
//   hello{version, build, cluster, node, nonce} ->
//                                                <- challenge{the same of the listener}
//   proof{mac, worker address} ->
//                                                <- accept{mac, worker address}
//   ready ->
//
// A mac is HMAC-SHA256 with the cluster's secret over the sender's role, both greetings (so both
// nonces and both identities) and its worker address. The tokens that name the sender in frames
// come from the same secret and nonces and never travel before the trust is there. Whoever refuses
// says why in one line, which the other side gets to see; nothing in it comes from the secret.
// Without a secret only loopback addresses are spoken to. What passes after the handshake is
// neither encrypted nor signed: the handshake keeps strangers out of a network on which nobody else
// reads or changes what passes, no more.
#pragma once

#include "runtime/transport/frame.hpp"

#include <functional>
#include <string>
#include <string_view>

namespace tandem::transport {

inline constexpr std::size_t min_secret_bytes = 16;

struct credentials {
  node_identity self;
  std::string build;
  std::string cluster;
  std::string secret;
};

// Whether this address may be listened on or dialled with what we have as a secret.
result<void> check_trust(const address& where, std::string_view secret);

nonce fresh_nonce();  // of the system's random numbers

class handshake {
 public:
  enum class role : std::uint8_t { dialler, listener };
  enum class state : std::uint8_t {
    talking,
    proven,  // listener: the peer knows the secret; its `ready` is still to come
    done,
    refused,
  };

  // Opens the data lane and says where its worker is. Called once, when the peer is to know it: a
  // listener's has proven itself by then.
  using lane_opener = std::function<result<bytes>()>;

  // `fresh` is 32 random bytes, never used before.
  handshake(role side, const credentials& own, const nonce& fresh, lane_opener open_lane);

  // What has to be sent before anything comes; empty for the listener.
  bytes greeting() const;
  // One record of the peer. What is to be answered is appended to `out`, also when it fails: then
  // it is the refusal, and the connection ends.
  result<void> take(const record& what, bytes& out);
  // Listener: a frame with our token is as good as `ready`.
  void heard_frame();

  state now() const { return state_; }
  const node_identity& peer() const { return peer_.node; }
  const bytes& peer_worker_address() const { return peer_worker_; }
  std::uint64_t token_in() const { return token_in_; }    // in frames that we get
  std::uint64_t token_out() const { return token_out_; }  // in frames that we send

 private:
  result<void> take_greeting(const record& what, bytes& out);
  result<void> take_proof(const record& what, bytes& out);
  result<void> tell_worker(record_kind what, bytes& out);
  error refuse(std::string reason, bytes& out);
  error break_off(std::string reason);  // without a word to the peer
  result<void> check(const hello& theirs) const;
  mac mac_of(std::string_view label, std::span<const char> worker_address) const;
  void make_tokens();

  const credentials& own_;
  role side_;
  lane_opener open_lane_;
  state state_ = state::talking;
  bool greeted_ = false;
  hello mine_;
  hello peer_;
  bytes peer_worker_;
  std::uint64_t token_in_ = 0;
  std::uint64_t token_out_ = 0;
};

}  // namespace tandem::transport
