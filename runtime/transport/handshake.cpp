#include "runtime/transport/handshake.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>

namespace tandem::transport {

result<void> check_trust(const address& where, std::string_view secret) {
  if (secret.empty()) {
    if (where.is_loopback()) return {};
    return error{errc::forbidden,
                 fmt::format("{} can be reached from other machines and this cluster has no "
                             "secret: give every node the same secret, or use 127.0.0.1",
                             where.to_string()),
                 "secret"};
  }
  if (secret.size() < min_secret_bytes)
    return error{errc::bad_request,
                 fmt::format("a secret of {} characters can be guessed: give {} or more",
                             secret.size(), min_secret_bytes),
                 "secret"};
  return {};
}

namespace {

void append(bytes& to, const bytes& more) { to.insert(to.end(), more.begin(), more.end()); }

}  // namespace

nonce fresh_nonce() {
  nonce made{};
  const int rc = RAND_bytes(made.data(), static_cast<int>(made.size()));
  ensure(rc == 1, "the system has random numbers");
  return made;
}

handshake::handshake(role side, const credentials& own, const nonce& fresh, lane_opener open_lane)
    : own_(own), side_(side), open_lane_(std::move(open_lane)) {
  mine_.build = own.build;
  mine_.cluster = own.cluster;
  mine_.node = own.self;
  mine_.fresh = fresh;
}

bytes handshake::greeting() const {
  if (side_ == role::listener) return {};
  return encode_record(record_kind::hello, encode_body(mine_));
}

result<void> handshake::take(const record& what, bytes& out) {
  ensure(state_ != state::refused, "a record after the refusal");
  if (what.kind == record_kind::refusal) {
    const auto reason = decode_refusal(what.body);
    return break_off("it refused: " + (reason ? *reason : reason.error().detail));
  }
  if (!greeted_) return take_greeting(what, out);
  if (state_ == state::talking) return take_proof(what, out);
  if (state_ == state::proven && what.kind == record_kind::ready) {
    state_ = state::done;
    return {};
  }
  return refuse("a record that does not belong here", out);
}

void handshake::heard_frame() {
  if (state_ == state::proven) state_ = state::done;
}

result<void> handshake::take_greeting(const record& what, bytes& out) {
  const auto expected = side_ == role::listener ? record_kind::hello : record_kind::challenge;
  if (what.kind != expected) return refuse("the first record has to be a greeting", out);
  auto theirs = decode_hello(what.body);
  if (!theirs) return refuse(theirs.error().detail, out);
  if (const auto fits = check(*theirs); !fits) return refuse(fits.error().detail, out);
  peer_ = *std::move(theirs);
  greeted_ = true;
  if (side_ == role::dialler) return tell_worker(record_kind::proof, out);
  append(out, encode_record(record_kind::challenge, encode_body(mine_)));
  return {};
}

result<void> handshake::tell_worker(record_kind what, bytes& out) {
  auto where = open_lane_();
  if (!where) return refuse(where.error().detail, out);
  proof ours{mac_of(side_ == role::dialler ? "dialler" : "listener", *where), {}};
  ours.worker_address = *std::move(where);
  append(out, encode_record(what, encode_body(ours)));
  return {};
}

result<void> handshake::take_proof(const record& what, bytes& out) {
  const bool listening = side_ == role::listener;
  if (what.kind != (listening ? record_kind::proof : record_kind::accept))
    return refuse("a record that does not belong here", out);
  auto theirs = decode_proof(what.body);
  if (!theirs) return refuse(theirs.error().detail, out);
  const mac expected = mac_of(listening ? "dialler" : "listener", theirs->worker_address);
  if (CRYPTO_memcmp(expected.data(), theirs->proves.data(), expected.size()) != 0)
    return refuse(fmt::format("the secrets of {} and {} differ: give both nodes the same one",
                              own_.self.listen.to_string(), peer_.node.listen.to_string()),
                  out);
  peer_worker_ = std::move(theirs->worker_address);
  make_tokens();
  if (listening) {
    if (auto told = tell_worker(record_kind::accept, out); !told) return told;
    state_ = state::proven;
  } else {
    append(out, encode_record(record_kind::ready, {}));
    state_ = state::done;
  }
  return {};
}

result<void> handshake::check(const hello& theirs) const {
  const auto no = [](std::string why) { return error{errc::conflict, std::move(why), ""}; };
  if (theirs.protocol != protocol_version)
    return no(fmt::format("{} speaks protocol {}, its peer {}: run the same build on both",
                          own_.self.listen.to_string(), protocol_version, theirs.protocol));
  if (theirs.cluster != own_.cluster)
    return no(fmt::format("{} belongs to cluster \"{}\", its peer to \"{}\"",
                          own_.self.listen.to_string(), own_.cluster, theirs.cluster));
  if (theirs.build != own_.build)
    return no(fmt::format("{} runs build {}, its peer {}: run the same build on both",
                          own_.self.listen.to_string(), own_.build, theirs.build));
  if (theirs.node == own_.self)
    return no(fmt::format("{} is this node itself", own_.self.listen.to_string()));
  if (theirs.fresh == mine_.fresh) return no("the greeting repeats this node's own number");
  return {};
}

mac handshake::mac_of(std::string_view label, std::span<const char> worker_address) const {
  const auto& first = side_ == role::dialler ? mine_ : peer_;
  const auto& second = side_ == role::dialler ? peer_ : mine_;
  bytes over;
  wire_writer writer(over);
  writer.counted(label);
  writer.counted(encode_body(first));
  writer.counted(encode_body(second));
  writer.counted(worker_address);
  mac made{};
  unsigned size = 0;
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  std::vector<unsigned char> input(over.begin(), over.end());
  const auto* done = HMAC(EVP_sha256(), own_.secret.data(), static_cast<int>(own_.secret.size()),
                          input.data(), input.size(), digest.data(), &size);
  ensure(done != nullptr && size == made.size(), "HMAC-SHA256 of a greeting");
  std::copy_n(digest.begin(), made.size(), made.begin());
  return made;
}

void handshake::make_tokens() {
  const auto token = [this](std::string_view label) {
    const mac from = mac_of(label, {});
    std::uint64_t made = 0;
    std::memcpy(&made, from.data(), sizeof made);
    return made | 1;  // never 0
  };
  const auto to_listener = token("token to listener");
  const auto to_dialler = token("token to dialler");
  token_in_ = side_ == role::listener ? to_listener : to_dialler;
  token_out_ = side_ == role::listener ? to_dialler : to_listener;
}

error handshake::refuse(std::string reason, bytes& out) {
  const bytes said = encode_record(record_kind::refusal, encode_refusal(reason));
  out.insert(out.end(), said.begin(), said.end());
  return break_off(std::move(reason));
}

error handshake::break_off(std::string reason) {
  state_ = state::refused;
  return {errc::forbidden, std::move(reason), ""};
}

}  // namespace tandem::transport
