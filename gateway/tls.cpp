#include "gateway/tls.hpp"

#include <openssl/ssl.h>

#include <algorithm>
#include <string_view>

namespace tandem::gateway {

namespace {

namespace ssl = boost::asio::ssl;

// HTTP/1.1 is all that is spoken here; a client that offers other protocols is told so.
int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_bytes,
                    const unsigned char* offered, unsigned int offered_bytes, void*) {
  constexpr std::string_view http_1_1 = "http/1.1";
  for (unsigned int at = 0; at < offered_bytes; at += 1U + offered[at]) {
    const unsigned int bytes = offered[at];
    if (at + 1 + bytes > offered_bytes) break;
    if (std::equal(http_1_1.begin(), http_1_1.end(), offered + at + 1, offered + at + 1 + bytes)) {
      *chosen = offered + at + 1;
      *chosen_bytes = static_cast<unsigned char>(bytes);
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_NOACK;
}

}  // namespace

result<std::shared_ptr<ssl::context>> tls_context(const server_settings& settings) {
  if (settings.tls_cert.empty() && settings.tls_key.empty()) return std::shared_ptr<ssl::context>();
  if (settings.tls_cert.empty() || settings.tls_key.empty())
    return error{errc::bad_request, "TLS needs both server.tls_cert and server.tls_key",
                 settings.tls_cert.empty() ? "server.tls_cert" : "server.tls_key"};

  boost::system::error_code ec;
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                           ssl::context::no_sslv3 | ssl::context::no_tlsv1 |
                           ssl::context::no_tlsv1_1 | ssl::context::single_dh_use,
                       ec);
  context->use_certificate_chain_file(settings.tls_cert, ec);
  if (ec)
    return error{errc::bad_file,
                 "the certificate " + settings.tls_cert + " cannot be used (" + ec.message() +
                     "): give a PEM file with the certificate and its chain",
                 "server.tls_cert"};
  context->use_private_key_file(settings.tls_key, ssl::context::pem, ec);
  if (ec || SSL_CTX_check_private_key(context->native_handle()) != 1)
    return error{errc::bad_file,
                 "the key " + settings.tls_key + " cannot be used (" +
                     (ec ? ec.message() : "it is not the certificate's") +
                     "): give the PEM file of the certificate's private key, without passphrase",
                 "server.tls_key"};
  SSL_CTX_set_alpn_select_cb(context->native_handle(), choose_protocol, nullptr);
  return context;
}

}  // namespace tandem::gateway
