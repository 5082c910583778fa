// The same server behind TLS, with a certificate made here.
#include "server_client.hpp"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <catch2/catch.hpp>

#include <cstdio>
#include <filesystem>

using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;

namespace {

template <class Thing, void (*Free)(Thing*)>
struct freed {
  void operator()(Thing* thing) const { Free(thing); }
};
using key_pointer = std::unique_ptr<EVP_PKEY, freed<EVP_PKEY, EVP_PKEY_free>>;
using x509_pointer = std::unique_ptr<X509, freed<X509, X509_free>>;
using context_pointer = std::unique_ptr<SSL_CTX, freed<SSL_CTX, SSL_CTX_free>>;
using ssl_pointer = std::unique_ptr<SSL, freed<SSL, SSL_free>>;

// A self-signed certificate and its key in two files, gone afterwards.
class certificate {
 public:
  explicit certificate(const std::string& name)
      : cert_path_(std::filesystem::temp_directory_path() /
                   ("tandem_test_" + std::to_string(::getpid()) + "_" + name + ".crt")),
        key_path_(cert_path_.string() + ".key") {
    const key_pointer key(EVP_EC_gen("P-256"));
    const x509_pointer cert(X509_new());
    ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert.get()), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert.get()), 3600);
    X509_set_pubkey(cert.get(), key.get());
    X509_NAME* subject = X509_get_subject_name(cert.get());
    const std::string host = "localhost";
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(host.c_str()), -1, -1, 0);
    X509_set_issuer_name(cert.get(), subject);
    X509_sign(cert.get(), key.get(), EVP_sha256());
    std::FILE* cert_file = std::fopen(cert_path_.c_str(), "w");
    PEM_write_X509(cert_file, cert.get());
    std::fclose(cert_file);
    std::FILE* key_file = std::fopen(key_path_.c_str(), "w");
    PEM_write_PrivateKey(key_file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(key_file);
  }
  ~certificate() {
    std::filesystem::remove(cert_path_);
    std::filesystem::remove(key_path_);
  }
  certificate(const certificate&) = delete;
  certificate& operator=(const certificate&) = delete;

  std::string cert() const { return cert_path_; }
  std::string key() const { return key_path_; }

 private:
  std::filesystem::path cert_path_;
  std::filesystem::path key_path_;
};

server_settings tls_settings(const certificate& ours) {
  server_settings settings = any_port();
  settings.tls_cert = ours.cert();
  settings.tls_key = ours.key();
  return settings;
}

// TLS over a test client's socket.
class tls_client {
 public:
  explicit tls_client(int port)
      : under_(port), context_(SSL_CTX_new(TLS_client_method())), ssl_(SSL_new(context_.get())) {
    const timeval wait{10, 0};
    ::setsockopt(under_.native(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    const std::string offered = std::string("\x02") + "h2" + "\x08" + "http/1.1";
    SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(offered.data()),
                        static_cast<unsigned>(offered.size()));
    SSL_set_fd(ssl_.get(), under_.native());
    if (SSL_connect(ssl_.get()) != 1) throw std::runtime_error("no TLS");
  }

  void send(std::string_view bytes) {
    SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
  }
  std::string read_until(std::string_view end) {
    for (;;) {
      const std::size_t found = input_.find(end);
      if (found != std::string::npos) {
        std::string taken = input_.substr(0, found + end.size());
        input_.erase(0, taken.size());
        return taken;
      }
      if (!receive()) throw std::runtime_error("the connection ended after: " + input_);
    }
  }
  // How the server ended it: SSL_ERROR_ZERO_RETURN is a proper goodbye.
  int ending() {
    while (receive()) {
    }
    return last_error_;
  }
  std::string protocol() const {
    const unsigned char* name = nullptr;
    unsigned bytes = 0;
    SSL_get0_alpn_selected(ssl_.get(), &name, &bytes);
    return bytes == 0 ? "" : std::string(reinterpret_cast<const char*>(name), bytes);
  }
  void leave() { under_.leave(); }

 private:
  bool receive() {
    char bytes[16384];
    const int got = SSL_read(ssl_.get(), bytes, sizeof bytes);
    if (got <= 0) {
      last_error_ = SSL_get_error(ssl_.get(), got);
      return false;
    }
    input_.append(bytes, static_cast<std::size_t>(got));
    return true;
  }

  client under_;
  context_pointer context_;
  ssl_pointer ssl_;
  std::string input_;
  int last_error_ = 0;
};

}  // namespace

TEST_CASE("behind TLS requests are answered and pipelined as on plain TCP") {
  const certificate ours("tls");
  const auto running = started(tls_settings(ours), basic_routes());
  tls_client one(running->port());
  CHECK(one.protocol() == "http/1.1");
  one.send(get("/hello") + post("/echo", std::string(200'000, 'x') + "end"));
  CHECK_THAT(one.read_until("hello"), Contains("HTTP/1.1 200 OK"));
  one.read_until("xend");
  one.send(get("/hello", "connection: close\r\n"));
  one.read_until("hello");
  CHECK(one.ending() == SSL_ERROR_ZERO_RETURN);
}

TEST_CASE("behind TLS a client that leaves a stream is noticed") {
  const certificate ours("tls");
  auto routes = basic_routes();
  promised<std::shared_ptr<responder>> held;
  routes->add(make_route("GET", "/stream", [&](const auto&, const auto& to) { held.set(to); }));
  const auto running = started(tls_settings(ours), routes);
  tls_client one(running->port());
  one.send(get("/stream"));
  const auto to = held.wait();
  promised<bool> gone;
  to->on_gone([&] { gone.set(true); });
  to->begin(200, "text/event-stream", {});
  to->write("data: 1\n\n");
  one.read_until("data: 1\n\n");
  one.leave();
  CHECK(gone.wait());
}

TEST_CASE("plain HTTP on a TLS port costs only that connection") {
  const certificate ours("tls");
  const auto running = started(tls_settings(ours), basic_routes());
  client plain(running->port());
  plain.send(get("/hello"));
  CHECK_THAT(plain.rest(), !Contains("hello"));
  tls_client one(running->port());
  one.send(get("/hello"));
  CHECK_THAT(one.read_until("hello"), Contains("200"));
}

TEST_CASE("a handshake that never ends is cut off") {
  const certificate ours("tls");
  server_settings settings = tls_settings(ours);
  settings.header_timeout_ms = 50;
  const auto running = started(settings, basic_routes());
  client silent(running->port());
  CHECK(silent.rest().empty());
}

TEST_CASE("a certificate that cannot be used is an error at the start") {
  const certificate ours("ours");
  const certificate other("other");
  server_settings settings = tls_settings(ours);
  settings.tls_cert = "/nowhere/cert.pem";
  const auto missing = server::create(settings, basic_routes());
  REQUIRE(!missing);
  CHECK(missing.error().param == "server.tls_cert");
  CHECK_THAT(missing.error().detail, Contains("/nowhere/cert.pem"));

  settings = tls_settings(ours);
  settings.tls_key = other.key();
  const auto mismatched = server::create(settings, basic_routes());
  REQUIRE(!mismatched);
  CHECK(mismatched.error().param == "server.tls_key");

  settings = tls_settings(ours);
  settings.tls_key.clear();
  const auto half = server::create(settings, basic_routes());
  REQUIRE(!half);
  CHECK_THAT(half.error().detail, Contains("both"));
}
